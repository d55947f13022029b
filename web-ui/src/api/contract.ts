/** The contract the client is typed by: generated, and by hand only where the generated one is still silent. */
import type { paths as Provisional } from './provisional'
import type { paths as Generated } from './schema'

export type paths = Generated & Omit<Provisional, keyof Generated>
