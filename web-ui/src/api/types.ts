/** The hub's nouns, by the names the pages use. */
export type {
  AccessInfo,
  ClaimPreview,
  ServerDetail,
  ServerInfo,
  ServerName,
  User,
} from './provisional'
