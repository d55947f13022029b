/** The hub's nouns, by the names the pages use. */
import type { components } from './schema'

type Schemas = components['schemas']

export type AccessInfo = Schemas['AccessInfo']
export type Availability = Schemas['AvailabilityReply']
export type ClaimPreview = Schemas['ClaimPreview']
export type ServerDetail = Schemas['ServerDetail']
export type ServerInfo = Schemas['ServerInfo']
export type ServerName = Schemas['ServerName']
export type ServerNotice = Schemas['ServerNotice']
export type User = Schemas['User']

/** Who may come in at a name. */
export type Access = 'protected' | 'open'

/** What a server is: behind our agent, or a Phlix server that speaks the hub's own protocol. */
export function kindWord(kind: string): string {
  return kind === 'phlix' ? 'Phlix server' : 'Web server'
}
