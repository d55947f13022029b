/** Every call the pages make, by name. Nothing else in the UI knows a path. */
import { call } from './client'
import type { Access, AccessInfo, Availability, ClaimPreview, ServerDetail, ServerInfo, ServerName, ServerNotice, User } from './types'

/** The claim calls are shared with media servers and want the protocol named. */
const PROTOCOL = { 'Accept-Phlix-Protocol': 'v1' }

export async function me(): Promise<User> {
  const reply = await call('get', '/api/v1/me', { signedOutIsAnAnswer: true })
  return reply.user
}

export async function signIn(username: string, password: string): Promise<void> {
  await call('post', '/api/v1/auth/login', { body: { username, password }, signedOutIsAnAnswer: true })
}

export async function signUp(username: string, email: string, password: string): Promise<void> {
  await call('post', '/api/v1/auth/register', { body: { username, email, password }, signedOutIsAnAnswer: true })
}

export async function signOut(): Promise<void> {
  await call('post', '/api/v1/auth/logout', { signedOutIsAnAnswer: true })
}

export async function servers(signal?: AbortSignal): Promise<ServerInfo[]> {
  const reply = await call('get', '/api/v1/me/servers', { signal })
  return reply.servers
}

export function server(id: string, signal?: AbortSignal): Promise<ServerDetail> {
  return call('get', '/api/v1/me/servers/{id}', { path: { id }, signal })
}

export function accessInfo(id: string, signal?: AbortSignal): Promise<AccessInfo> {
  return call('get', '/api/v1/me/servers/{id}/access-info', { path: { id }, signal })
}

export async function setNameAccess(id: string, host: string, access: Access): Promise<void> {
  await call('put', '/api/v1/me/servers/{id}/names/{host}', { path: { id, host }, body: { access } })
}

export function nameAvailability(label: string, signal?: AbortSignal): Promise<Availability> {
  return call('get', '/api/v1/me/names/availability', { query: { label }, signal })
}

export function addName(id: string, label: string): Promise<ServerName> {
  return call('post', '/api/v1/me/servers/{id}/names', { path: { id }, body: { label } })
}

export async function removeName(id: string, host: string): Promise<void> {
  await call('delete', '/api/v1/me/servers/{id}/names/{host}', { path: { id, host } })
}

export async function setGuard(id: string, on: boolean): Promise<void> {
  await call('put', '/api/v1/me/servers/{id}', { path: { id }, body: { guard_local_paths: on } })
}

/** Whether the hub takes a Phlix server's tunnel over TLS alone. */
export async function setTlsOnly(id: string, on: boolean): Promise<void> {
  await call('put', '/api/v1/me/servers/{id}', { path: { id }, body: { tls_only: on } })
}

/** Every copy of its credentials stops working, its own too. */
export async function rollCredentials(id: string): Promise<void> {
  await call('post', '/api/v1/me/servers/{id}/roll-credentials', { path: { id } })
}

/** What happened to the user's servers and waits to be read. */
export async function notices(signal?: AbortSignal): Promise<ServerNotice[]> {
  const reply = await call('get', '/api/v1/me/notices', { signal })
  return reply.notices
}

export async function dismissNotice(id: string): Promise<void> {
  await call('delete', '/api/v1/me/notices/{id}', { path: { id } })
}

export async function removeServer(id: string): Promise<void> {
  await call('delete', '/api/v1/me/servers/{id}', { path: { id } })
}

export function claimPreview(code: string, signal?: AbortSignal): Promise<ClaimPreview> {
  return call('get', '/api/v1/server-claims/preview', { query: { code }, headers: PROTOCOL, signal })
}

/** Redeems the code: the server that is now ours. */
export async function claim(code: string): Promise<{ id: string; name: string }> {
  const reply = await call('post', '/api/v1/server-claims/claim', { body: { claim_code: code }, headers: PROTOCOL })
  return { id: reply.server_id, name: reply.server_name }
}
