/**
 * The typed fetch: one function whose path, parameters, body and reply all
 * come from the contract. Same origin only, by the session cookie only; no
 * token ever reaches this code.
 */
import type { paths } from './schema'
import { ApiError } from './errors'

/** No answer of the hub's API takes longer unless something is broken. */
const TIMEOUT_MS = 15_000

type Method = 'get' | 'post' | 'put' | 'delete'

export type PathsWith<M extends Method> = {
  [P in keyof paths]: paths[P] extends Record<M, object> ? P : never
}[keyof paths]

type Operation<M extends Method, P extends keyof paths> = M extends keyof paths[P] ? paths[P][M] : never

type PathOf<Op> = Op extends { parameters: { path: infer T extends object } } ? { path: T } : unknown
type QueryOf<Op> = Op extends { parameters: { query: infer T extends object } }
  ? { query: T }
  : Op extends { parameters: { query?: infer T } }
    ? [T] extends [undefined]
      ? unknown
      : { query?: T }
    : unknown
type BodyOf<Op> = Op extends { requestBody: { content: { 'application/json': infer T } } }
  ? { body: T }
  : Op extends { requestBody?: { content: { 'application/json': infer T } } }
    ? { body?: T }
    : unknown

type Success = 200 | 201 | 204

type ReplyOf<Op> = Op extends { responses: infer R }
  ? {
      [S in keyof R & Success]: R[S] extends { content: { 'application/json': infer T } } ? T : undefined
    }[keyof R & Success]
  : never

interface Extras {
  headers?: Record<string, string>
  signal?: AbortSignal | undefined
  /** A 401 here is an answer, not the end of the session (sign-in, `me`). */
  signedOutIsAnAnswer?: boolean
}

export type CallOptions<M extends Method, P extends keyof paths> = PathOf<Operation<M, P>> &
  QueryOf<Operation<M, P>> &
  BodyOf<Operation<M, P>> &
  Extras

export type Reply<M extends Method, P extends keyof paths> = ReplyOf<Operation<M, P>>

let sessionEnded: () => void = () => {}

/** Who to tell when a call finds that the session is over. */
export function onSessionEnded(listener: () => void): void {
  sessionEnded = listener
}

/** Performs one call. Rejects with `ApiError`, or with the abort's reason when `signal` fired. */
export async function call<M extends Method, P extends PathsWith<M> & string>(
  method: M,
  path: P,
  options: CallOptions<M, P>,
): Promise<Reply<M, P>> {
  const given: Extras & { path?: object; query?: object; body?: unknown } = options
  const url = fill(path, given.path) + search(given.query)
  const timeout = AbortSignal.timeout(TIMEOUT_MS)
  const headers: Record<string, string> = { Accept: 'application/json', ...given.headers }
  const init: RequestInit = {
    method: method.toUpperCase(),
    credentials: 'same-origin',
    cache: 'no-store',
    redirect: 'error',
    headers,
    signal: given.signal ? AbortSignal.any([given.signal, timeout]) : timeout,
  }
  if (given.body !== undefined) {
    headers['Content-Type'] = 'application/json'
    init.body = JSON.stringify(given.body)
  }

  let response: Response
  let body: unknown
  try {
    response = await fetch(url, init)
    body = await json(response)
  } catch (cause) {
    if (given.signal?.aborted) throw cause
    throw timeout.aborted ? ApiError.tooSlow() : ApiError.unreachable()
  }
  if (!response.ok) {
    if (response.status === 401 && !given.signedOutIsAnAnswer) sessionEnded()
    throw ApiError.refused(response, body)
  }
  return body as Reply<M, P>
}

/** Puts the parameters into the template; each stays one path segment, whatever it contains. */
function fill(template: string, parameters: object = {}): string {
  const values = new Map(Object.entries(parameters))
  return template.replace(/\{(\w+)\}/g, (_, name: string) => {
    const value = String(values.get(name) ?? '')
    if (value === '' || value === '.' || value === '..') throw new TypeError(`path parameter ${name} is missing`)
    return encodeURIComponent(value)
  })
}

function search(query: object | undefined): string {
  if (!query) return ''
  const pairs = Object.entries(query).filter(([, value]) => value !== undefined && value !== null)
  return pairs.length === 0 ? '' : `?${new URLSearchParams(pairs.map(([name, value]) => [name, String(value)]))}`
}

async function json(response: Response): Promise<unknown> {
  if (!response.headers.get('Content-Type')?.includes('application/json')) return undefined
  const text = await response.text()
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
