/**
 * A hub for the browser tests: serves dist/ as the control plane does, under
 * the strict CSP, and answers the API from memory. Bodies are typed by the
 * same contract as the client. It keeps the session rules that the UI relies
 * on: an HttpOnly cookie, set and believed for writes only with our own Origin.
 */
import { randomBytes, randomUUID } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import { extname } from 'node:path'

/** @import { AccessInfo, ClaimPreview, ServerDetail, ServerInfo, ServerNotice, User } from '../src/api/types.js' */
/** @import { IncomingMessage, ServerResponse } from 'node:http' */
/** @import { MockHome } from './mock-home.mjs' */

const DIST = new URL('../dist/', import.meta.url)

/** @type {Record<string, string>} */
const TYPES = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml',
}

const COOKIE = '__Host-phlix-s'

/**
 * @typedef {{ info: ServerInfo, detail: ServerDetail, access: AccessInfo }} Server
 * @typedef {{ user: User, password: string, servers: Server[] }} Account
 * @typedef {{ preview: ClaimPreview, state: 'pending' | 'claimed' | 'expired', server: Server }} Claim
 */

export class MockHub {
  /** @type {Map<string, Account>} */
  accounts = new Map()
  /** @type {Map<string, Account>} */
  sessions = new Map()
  /** @type {Map<string, Claim>} */
  claims = new Map()
  /** Answers the next calls whose `METHOD path` matches in this way instead.
   * @type {{ match: RegExp, status: number, body: object, headers?: Record<string, string> }[]} */
  faults = []
  /** Documents outside /app/ that were asked for: what followed a sign-in.
   * @type {string[]} */
  visited = []
  /** What those documents answer, by path; a plain heading when not said.
   * @type {Map<string, (url: URL, account: Account | undefined, response: ServerResponse) => void>} */
  documents = new Map()
  /** Behind the proxy path, by server id.
   * @type {Map<string, MockHome>} */
  homes = new Map()
  /** @type {string[]} */
  writes = []
  origin = ''
  /** Off, a story sees what the source lists alone hold back. */
  trustedTypes = true

  #server = createServer((request, response) => {
    this.#answer(request, response).catch((error) => {
      console.error(error)
      if (!response.headersSent) response.writeHead(500)
      response.end()
    })
  })

  /** @param {number} [port] */
  async start(port = 0) {
    await new Promise((resolve) => this.#server.listen(port, '127.0.0.1', () => resolve(undefined)))
    const address = this.#server.address()
    if (address === null || typeof address === 'string') throw new Error('no port')
    this.origin = `http://localhost:${address.port}`
    return this.origin
  }

  async stop() {
    this.#server.closeAllConnections()
    await new Promise((resolve) => this.#server.close(() => resolve(undefined)))
  }

  get csp() {
    return [
      "default-src 'none'",
      `script-src ${this.origin}/app/assets/`,
      `style-src ${this.origin}/app/assets/`,
      "img-src 'self'",
      "font-src 'self'",
      "media-src 'self'",
      "connect-src 'self'",
      "form-action 'self'",
      "base-uri 'none'",
      "frame-ancestors 'none'",
      ...(this.trustedTypes ? ["require-trusted-types-for 'script'", 'trusted-types vue'] : []),
    ].join('; ')
  }

  /**
   * @param {IncomingMessage} request
   * @param {ServerResponse} response
   */
  async #answer(request, response) {
    const url = new URL(request.url ?? '/', this.origin)
    const method = request.method ?? 'GET'
    if (url.pathname.startsWith('/api/')) return this.#api(request, response, method, url)
    if (url.pathname === '/') return response.writeHead(302, { Location: '/app/servers' }).end()
    if (url.pathname.startsWith('/app')) return this.#page(response, url.pathname)
    if (url.pathname === '/favicon.ico') return response.writeHead(204).end()
    this.visited.push(url.pathname + url.search)
    const document = this.documents.get(url.pathname)
    if (document) return document(url, this.sessions.get(cookieOf(request) ?? ''), response)
    response.writeHead(200, { 'Content-Type': 'text/html' }).end('<h1>Another part of the hub</h1>')
  }

  /**
   * @param {ServerResponse} response
   * @param {string} path
   */
  async #page(response, path) {
    const asset = /^\/app\/(assets\/[\w.-]+)$/.exec(path)
    const file = asset?.[1] ?? 'index.html'
    const body = await readFile(new URL(file, DIST)).catch(() => undefined)
    if (!body) return response.writeHead(404, { 'Content-Type': 'text/plain' }).end('not found: is dist/ built?')
    response.writeHead(200, {
      'Content-Type': TYPES[extname(file)] ?? 'application/octet-stream',
      'Content-Security-Policy': this.csp,
      'X-Content-Type-Options': 'nosniff',
      'X-Frame-Options': 'DENY',
      'Referrer-Policy': 'same-origin',
      'Cross-Origin-Opener-Policy': 'same-origin',
      'Cache-Control': asset ? 'public, max-age=31536000, immutable' : 'no-cache',
    })
    response.end(body)
  }

  /**
   * @param {IncomingMessage} request
   * @param {ServerResponse} response
   * @param {string} method
   * @param {URL} url
   */
  async #api(request, response, method, url) {
    const line = `${method} ${url.pathname}`
    const body = await jsonOf(request)
    const ours = request.headers.origin === this.origin
    if (method !== 'GET') this.writes.push(line)

    /** @param {number} status @param {unknown} [value] @param {Record<string, string>} [headers] */
    const send = (status, value, headers = {}) => {
      response.writeHead(status, { ...(value === undefined ? {} : { 'Content-Type': 'application/json' }), ...headers })
      response.end(value === undefined ? undefined : JSON.stringify(value))
    }
    /** @param {number} status @param {string} code @param {string} message */
    const refuse = (status, code, message) => send(status, { error: message, code, message })

    const fault = this.faults.findIndex(({ match }) => match.test(line))
    if (fault >= 0) {
      const [{ status, body: wrong, headers }] = /** @type {[any]} */ (this.faults.splice(fault, 1))
      return send(status, wrong, headers)
    }

    /** @param {number} status @param {Account} account */
    const signIn = (status, account) => {
      const secret = randomBytes(32).toString('base64url')
      const headers = ours ? { 'Set-Cookie': `${COOKIE}=${secret}; Path=/; Max-Age=604800; HttpOnly; Secure; SameSite=Lax` } : undefined
      if (ours) this.sessions.set(secret, account)
      send(status, { access_token: 'never-keep-me', refresh_token: 'nor-me', token_type: 'Bearer', expires_in: 3600, user: account.user, claims: {} }, headers)
    }

    if (line === 'POST /api/v1/auth/register') {
      if (this.accounts.has(body.username)) return refuse(400, 'validation_failed', 'Username already taken')
      return signIn(201, this.addAccount(body.username, body.password, body.email))
    }
    if (line === 'POST /api/v1/auth/login') {
      const account = this.accounts.get(body.username)
      if (!account || account.password !== body.password) return refuse(401, 'auth.invalid_credentials', 'Invalid credentials')
      return signIn(200, account)
    }

    const secret = cookieOf(request)
    const account = secret === undefined || (method !== 'GET' && !ours) ? undefined : this.sessions.get(secret)
    if (line === 'POST /api/v1/auth/logout') {
      if (account && secret) this.sessions.delete(secret)
      // Another site's form must not even clear the cookie.
      return send(204, undefined, ours ? { 'Set-Cookie': `${COOKIE}=; Path=/; Max-Age=0; HttpOnly; Secure; SameSite=Lax` } : {})
    }
    if (!account) return refuse(401, 'auth.required', 'Unauthorized')

    const [, proxied, rest] = /^\/api\/v1\/servers\/([^/]+)\/proxy(\/.*)$/.exec(url.pathname + url.search) ?? []
    if (proxied && rest) {
      const home = account.servers.some(({ info }) => info.serverId === proxied) ? this.homes.get(proxied) : undefined
      if (['document', 'iframe', 'script'].includes(String(request.headers['sec-fetch-dest']))) return refuse(403, 'proxy.scope_denied', 'Not here')
      return home ? home.answer(request, response, rest) : refuse(503, 'server.offline', 'Server is offline')
    }

    if (line === 'GET /api/v1/me') return send(200, { user: account.user, claims: {}, servers: account.servers.map(({ info }) => info) })
    if (line === 'GET /api/v1/me/servers') return send(200, { servers: account.servers.map(({ info }) => info) })

    if (line === 'GET /api/v1/me/notices') return send(200, { notices: account.servers.flatMap(({ detail }) => detail.notices) })
    const [, notice] = /^DELETE \/api\/v1\/me\/notices\/([^/]+)$/.exec(line) ?? []
    if (notice) {
      for (const { detail } of account.servers) detail.notices = detail.notices.filter(({ id }) => id !== notice)
      return send(204)
    }

    if (url.pathname.startsWith('/api/v1/server-claims/')) {
      if (request.headers['accept-phlix-protocol'] !== 'v1') return refuse(400, 'hub.protocol_unsupported', 'Accept-Phlix-Protocol: v1 required')
      const code = url.searchParams.get('code') ?? body.claim_code
      const claim = this.claims.get(code)
      if (!claim) return refuse(404, 'claim.code_not_found', 'Claim code not found')
      if (claim.state === 'expired') return refuse(410, 'claim.code_expired', 'Claim code expired')
      if (claim.state === 'claimed') return refuse(409, 'claim.code_already_claimed', 'Claim code already claimed')
      if (line === 'GET /api/v1/server-claims/preview') return send(200, claim.preview)
      if (line === 'POST /api/v1/server-claims/claim') {
        claim.state = 'claimed'
        account.servers.unshift(claim.server)
        return send(200, { server_id: claim.server.info.serverId, server_name: claim.server.info.serverName, hub_jwks_url: `${this.origin}/.well-known/jwks.json` })
      }
    }

    if (line === 'GET /api/v1/me/names/availability') {
      const label = url.searchParams.get('label') ?? ''
      const refused = this.#unavailable(label)
      return send(200, {
        label,
        host: refused?.reason === 'malformed' ? null : `${label}.hub.localhost`,
        available: refused === undefined,
        reason: refused?.reason ?? null,
        message: refused?.message ?? 'It is free.',
      })
    }

    const parts = /^\/api\/v1\/me\/servers\/([^/]+)(?:\/(access-info|names|roll-credentials)(?:\/([^/]+))?)?$/.exec(url.pathname)
    const server = account.servers.find(({ info }) => info.serverId === parts?.[1])
    if (!parts || !server) return refuse(404, 'server.not_found', 'Server not found')
    if (method === 'GET' && parts[2] === 'access-info') return send(200, server.access)
    if (method === 'GET' && parts[2] === undefined) return send(200, server.detail)
    if (method === 'DELETE' && parts[2] === undefined) {
      account.servers = account.servers.filter((other) => other !== server)
      return send(204)
    }
    if (method === 'PUT' && parts[2] === undefined) {
      const settings = server.detail.server
      if (typeof body.guard_local_paths === 'boolean') settings.guard_local_paths = body.guard_local_paths
      if (typeof body.tls_only === 'boolean') settings.tls_only = body.tls_only
      return send(200, { guard_local_paths: settings.guard_local_paths, tls_only: settings.tls_only })
    }
    if (method === 'POST' && parts[2] === 'roll-credentials') return send(204)
    if (method === 'POST' && parts[2] === 'names') {
      const refused = this.#unavailable(body.label)
      if (refused) return refuse(refused.reason === 'malformed' ? 400 : 409, `name.${refused.reason}`, refused.message)
      const host = `${body.label}.hub.localhost`
      const name = { host, url: `https://${host}:8443/`, access: 'protected', tls: 'terminated', generated: false }
      server.detail.names.splice(-1, 0, name)
      return send(201, name)
    }
    if (method === 'DELETE' && parts[2] === 'names') {
      if (server.detail.names.length === 1) return refuse(409, 'server.last_name', "This is the server's only name.")
      server.detail.names = server.detail.names.filter(({ host }) => host !== decodeURIComponent(parts[3] ?? ''))
      return send(204)
    }
    if (method === 'PUT' && parts[2] === 'names') {
      const name = server.detail.names.find(({ host }) => host === decodeURIComponent(parts[3] ?? ''))
      if (!name) return refuse(404, 'server.name_not_found', 'Name not found')
      name.access = body.access
      return send(200, name)
    }
    return refuse(404, 'not_found', 'The requested resource was not found')
  }

  /**
   * The hub's rules, as far as the stories need them.
   * @param {string} label
   */
  #unavailable(label) {
    if (label.length < 3) return { reason: 'malformed', message: 'A name has at least 3 characters.' }
    if (!/^[a-z0-9-]+$/.test(label)) return { reason: 'malformed', message: 'Use only letters from a to z, digits and hyphens.' }
    if (label === 'www') return { reason: 'reserved', message: 'This name is reserved for the hub itself.' }
    if (label === 'adrnin') return { reason: 'confusing', message: 'This looks too much like a name that is reserved for the hub.' }
    const servers = [...this.accounts.values()].flatMap((account) => account.servers)
    const isTaken = servers.some(({ detail }) => detail.names.some(({ host }) => host === `${label}.hub.localhost`))
    return isTaken ? { reason: 'taken', message: 'Somebody else has this name.' } : undefined
  }

  /** @param {string} username @param {string} password */
  addAccount(username, password, email = `${username}@example.org`) {
    const user = {
      id: randomUUID(),
      username,
      email,
      display_name: username,
      is_admin: this.accounts.size === 0 ? 1 : 0,
      created_at: '2026-11-24 10:00:00',
      updated_at: '2026-11-24 10:00:00',
    }
    /** @type {Account} */
    const account = { user, password, servers: [] }
    this.accounts.set(username, account)
    return account
  }

  /** A server waits to be claimed. @param {string} code @param {Server} server */
  addClaim(code, server, address = '192.168.1.20') {
    this.claims.set(code, {
      state: 'pending',
      server,
      preview: {
        server_name: server.info.serverName,
        version: server.info.version,
        kind: server.info.kind,
        requester_address: address,
        requested_at: seconds() - 120,
        expires_at: seconds() + 480,
      },
    })
  }
}

/**
 * @param {string} name
 * @param {{ online?: boolean, relayUrl?: string, directUrl?: string, beats?: number, version?: string, kind?: string }} [about]
 * @returns {Server}
 */
export function makeServer(name, about = {}) {
  const { online = true, directUrl = 'http://192.168.1.20:8096', beats = 3, version = '0.1.0', kind = 'generic' } = about
  const id = randomUUID()
  const host = `${id.slice(0, 8)}.hub.localhost`
  const url = about.relayUrl ?? `https://${host}:8443/`
  const status = online ? 'online' : 'offline'
  const seen = online ? seconds() - 20 : seconds() - 7_500
  return {
    info: {
      serverId: id,
      userId: randomUUID(),
      serverName: name,
      version,
      lastSeenAt: seen,
      status,
      hostnameCandidates: [directUrl],
      relayActive: online,
      libraryCount: null,
      subdomain: id.slice(0, 8),
      kind,
      url,
      server_id: id,
      server_name: name,
      last_seen_at: seen,
      relay_active: online,
      hostname: directUrl,
      relay_hostname: host,
      capabilities: [],
    },
    detail: {
      server: {
        id,
        server_name: name,
        kind,
        version,
        status,
        last_seen_at: seen,
        hostname_candidates: [directUrl],
        relay_active: online,
        subdomain: id.slice(0, 8),
        fqdn: host,
        url,
        guard_local_paths: true,
        tls_only: kind === 'phlix',
      },
      relay_session: null,
      tls_status: null,
      names: [{ host, url, access: 'protected', tls: 'terminated', generated: true }],
      most_names: 5,
      notices: [],
      heartbeat_history: Array.from({ length: beats }, (_, index) => ({
        id: randomUUID(),
        version,
        uptime_seconds: 86_400 * 3 - index * 60,
        active_sessions: index % 2,
        active_transcodes: 0,
        received_at: seen - index * 60,
      })),
    },
    access: {
      server_id: id,
      direct_url: directUrl,
      relay_url: online ? url : null,
      relay_active: online,
    },
  }
}

/**
 * The hub has something to tell of a server.
 * @param {Server} server
 * @param {Partial<ServerNotice>} about
 */
export function tell(server, about) {
  server.detail.notices.unshift({
    id: randomUUID(),
    server_id: server.info.serverId,
    server_name: server.info.serverName,
    kind: 'tunnel.plain',
    message: 'What happened, and what to do.',
    detail: '',
    times: 1,
    first_at: seconds() - 7_200,
    last_at: seconds() - 120,
    ...about,
  })
}

function seconds() {
  return Math.floor(Date.now() / 1000)
}

/** @param {IncomingMessage} request */
function cookieOf(request) {
  const found = request.headers.cookie?.split(/; */).find((pair) => pair.startsWith(`${COOKIE}=`))
  return found?.slice(COOKIE.length + 1)
}

/** @param {IncomingMessage} request @returns {Promise<any>} */
async function jsonOf(request) {
  const chunks = []
  for await (const chunk of request) chunks.push(chunk)
  if (!request.headers['content-type']?.includes('application/json')) return {}
  try {
    return JSON.parse(Buffer.concat(chunks).toString())
  } catch {
    return {}
  }
}
