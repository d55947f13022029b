/** The hub's nouns, by the names the pages use. */
export type {
  AccessInfo,
  ClaimPreview,
  ServerDetail,
  ServerInfo,
  ServerName,
  User,
} from './provisional'

/** Who may come in at a name. */
export type Access = 'protected' | 'open'

/** What a server is: behind our agent, or a Phlix server that speaks the hub's own protocol. */
export function kindWord(kind: string): string {
  return kind === 'phlix' ? 'Phlix server' : 'Web server'
}
