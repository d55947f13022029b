/** The contract the client is typed by: generated, and by hand only where the generated one is still silent. */
import type { paths as Provisional } from './provisional'

export type paths = Provisional
