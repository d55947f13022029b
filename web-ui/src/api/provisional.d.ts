/**
 * The contract by hand, in the generator's own form, for the routes that
 * `control-plane/openapi.json` does not describe yet. What the generated file
 * has wins (see contract.ts); delete an entry here once it does.
 */

type Json<T> = { headers: Record<string, unknown>; content: { 'application/json': T } }
type Empty = { headers: Record<string, unknown>; content?: never }

export interface User {
  id: string
  username: string
  email: string
  display_name: string
  is_admin: number
  created_at: string
  updated_at: string
}

export interface ServerInfo {
  serverId: string
  userId: string
  serverName: string
  version: string
  lastSeenAt?: number | null
  status: string
  hostnameCandidates: string[]
  relayActive: boolean
  libraryCount?: number | null
  subdomain?: string | null
  kind: string
  url?: string | null
}

export interface ServerName {
  host: string
  url: string
  access: string
  tls: string
}

export interface ServerDetail {
  server: {
    id: string
    server_name: string
    kind: string
    version: string
    status: string
    last_seen_at?: number | null
    hostname_candidates: string[]
    relay_active: boolean
    subdomain?: string | null
    fqdn?: string | null
    url?: string | null
  }
  names: ServerName[]
  heartbeat_history: {
    id: string
    version: string
    uptime_seconds: number
    active_sessions: number
    active_transcodes: number
    received_at: number
  }[]
}

export interface AccessInfo {
  server_id: string
  direct_url?: string | null
  relay_url?: string | null
  relay_active: boolean
}

export interface ClaimPreview {
  server_name: string
  version: string
  kind: string
  requester_address: string
  requested_at: number
  expires_at: number
}

interface SessionReply {
  user: User
}

type ById = { parameters: { path: { id: string } } }

export interface paths {
  '/api/v1/auth/register': {
    post: {
      requestBody: { content: { 'application/json': { username: string; email: string; password: string } } }
      responses: { 201: Json<SessionReply> }
    }
  }
  '/api/v1/auth/login': {
    post: {
      requestBody: { content: { 'application/json': { username: string; password: string } } }
      responses: { 200: Json<SessionReply> }
    }
  }
  '/api/v1/auth/logout': { post: { responses: { 204: Empty } } }
  '/api/v1/me': { get: { responses: { 200: Json<{ user: User; servers: ServerInfo[] }> } } }
  '/api/v1/me/servers': { get: { responses: { 200: Json<{ servers: ServerInfo[] }> } } }
  '/api/v1/me/servers/{id}': {
    get: ById & { responses: { 200: Json<ServerDetail> } }
    delete: ById & { responses: { 204: Empty } }
  }
  '/api/v1/me/servers/{id}/access-info': { get: ById & { responses: { 200: Json<AccessInfo> } } }
  '/api/v1/me/servers/{id}/names/{host}': {
    put: {
      parameters: { path: { id: string; host: string } }
      requestBody: { content: { 'application/json': { access?: string | null } } }
      responses: { 200: Json<ServerName> }
    }
  }
  '/api/v1/server-claims/preview': {
    get: { parameters: { query?: { code?: string } }; responses: { 200: Json<ClaimPreview> } }
  }
  '/api/v1/server-claims/claim': {
    post: {
      requestBody: { content: { 'application/json': { claim_code?: string | null } } }
      responses: { 200: Json<{ server_id: string }> }
    }
  }
}
