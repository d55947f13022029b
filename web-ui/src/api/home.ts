/** Every call to a home server, by name: the hub passes it on, the server answers. */
import { call } from './client'
import { ApiError } from './errors'
import { toChapters, toDetail, toLibraries, toPage, type Chapter, type Library, type MediaDetail, type MediaPage } from './homeData'
import { base } from './homeUrl'

/** The hub gives a server 30 s for the head of its answer and then says 504 itself. */
const TIMEOUT_MS = 40_000

/** Twenty times the largest page that a Phlix server was seen to send. */
const MAX_BYTES = 8 << 20

export interface Wanted {
  library?: string | undefined
  parent?: string | undefined
  search?: string | undefined
  /** The newest first, in place of the server's own order. */
  newest?: boolean
  limit: number
  offset: number
}

export async function libraries(server: string, signal?: AbortSignal): Promise<Library[]> {
  return toLibraries(await get(server, '/api/v1/libraries', signal))
}

export async function items(server: string, wanted: Wanted, signal?: AbortSignal): Promise<MediaPage> {
  const query = new URLSearchParams({ limit: String(wanted.limit), offset: String(wanted.offset) })
  if (wanted.library !== undefined) query.set('libraryId', wanted.library)
  if (wanted.parent !== undefined) query.set('parentId', wanted.parent)
  if (wanted.search !== undefined) query.set('search', wanted.search)
  // Films and series, not each episode of them; a search looks at all.
  else if (wanted.parent === undefined) query.set('topLevel', '1')
  if (wanted.newest) {
    query.set('sort', 'date_added')
    query.set('order', 'desc')
  }
  return toPage(server, await get(server, `/api/v1/media?${query}`, signal))
}

export async function item(server: string, id: string, signal?: AbortSignal): Promise<MediaDetail> {
  return toDetail(server, id, await get(server, `/api/v1/media/${encodeURIComponent(id)}`, signal))
}

export async function chapters(server: string, id: string, signal?: AbortSignal): Promise<Chapter[]> {
  return toChapters(await get(server, `/api/v1/media/${encodeURIComponent(id)}/chapters`, signal))
}

/** Whether the first byte of a stream comes: a `<video>` tells that it failed, and not why. */
export async function probe(stream: string, signal?: AbortSignal): Promise<void> {
  const response = await ask(stream, { Range: 'bytes=0-0' }, signal)
  await response.body?.cancel()
}

async function get(server: string, path: string, signal?: AbortSignal): Promise<unknown> {
  const response = await ask(base(server) + path, { Accept: 'application/json' }, signal)
  try {
    return JSON.parse(await limited(response))
  } catch (cause) {
    if (signal?.aborted) throw cause
    throw cause instanceof ApiError ? cause : ApiError.unreadable()
  }
}

/** The answer's head, where it is a success. */
async function ask(url: string, headers: Record<string, string>, signal?: AbortSignal): Promise<Response> {
  const timeout = AbortSignal.timeout(TIMEOUT_MS)
  let response: Response
  try {
    response = await fetch(url, {
      credentials: 'same-origin',
      cache: 'no-store',
      redirect: 'error',
      headers,
      signal: signal ? AbortSignal.any([signal, timeout]) : timeout,
    })
  } catch (cause) {
    if (signal?.aborted) throw cause
    throw timeout.aborted ? ApiError.tooSlow() : ApiError.unreachable()
  }
  if (response.ok) return response
  // The server may say 401 as well as the hub: whether the session is over is the hub's word alone.
  if (response.status === 401) await call('get', '/api/v1/me', { signal })
  throw ApiError.refused(response, await refusalOf(response))
}

async function refusalOf(response: Response): Promise<unknown> {
  try {
    return JSON.parse(await limited(response))
  } catch {
    return undefined
  }
}

/** The body as text; one without an end is cut off instead of kept. */
async function limited(response: Response): Promise<string> {
  const reader = response.body?.getReader()
  if (!reader) return ''
  const decoder = new TextDecoder()
  let text = ''
  let bytes = 0
  for (;;) {
    const { done, value } = await reader.read()
    if (done) return text + decoder.decode()
    bytes += value.byteLength
    if (bytes > MAX_BYTES) {
      await reader.cancel()
      throw ApiError.unreadable()
    }
    text += decoder.decode(value, { stream: true })
  }
}
