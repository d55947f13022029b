import { afterEach, describe, expect, it, vi } from 'vitest'
import { mockFetch, refusal } from '../testing'
import { onSessionEnded } from './client'
import * as home from './home'

const SERVER = '0b0e5a55-0000-4000-8000-000000000001'
const BASE = `/api/v1/servers/${SERVER}/proxy`

afterEach(() => void vi.unstubAllGlobals())

const nothing = () => Response.json({ items: [], total: 0 })

describe('items', () => {
  it.each([
    [{ library: 'L', limit: 48, offset: 48 }, 'limit=48&offset=48&libraryId=L&topLevel=1'],
    [{ parent: 'S', limit: 48, offset: 0 }, 'limit=48&offset=0&parentId=S'],
    [{ library: 'L', search: 'a&libraryId=M', limit: 48, offset: 0 }, 'limit=48&offset=0&libraryId=L&search=a%26libraryId%3DM'],
    [{ newest: true, limit: 12, offset: 0 }, 'limit=12&offset=0&topLevel=1&sort=date_added&order=desc'],
  ])('asks for %j by the names that the server knows', async (wanted, query) => {
    const seen = mockFetch(nothing)
    await home.items(SERVER, wanted)
    expect(seen[0]).toMatchObject({ method: 'GET', url: `${BASE}/api/v1/media?${query}`, credentials: 'same-origin' })
  })

  it('tells the hub’s codes, flat and nested', async () => {
    mockFetch(() => refusal(503, 'server.offline', 'x'), () => Response.json({ error: { code: 'stream.limit' } }, { status: 503 }))
    await expect(home.items(SERVER, { limit: 1, offset: 0 })).rejects.toMatchObject({ code: 'server.offline', status: 503 })
    await expect(home.items(SERVER, { limit: 1, offset: 0 })).rejects.toMatchObject({ code: 'stream.limit' })
  })

  it('is unreadable when it is no JSON', async () => {
    mockFetch(() => new Response('<h1>hello</h1>', { headers: { 'Content-Type': 'text/html' } }))
    await expect(home.items(SERVER, { limit: 1, offset: 0 })).rejects.toMatchObject({ fault: 'unreadable' })
  })

  it('stops reading what does not end', async () => {
    let sent = 0
    let cancelled = false
    const endless = new ReadableStream({
      pull(controller) {
        sent += 1
        controller.enqueue(new Uint8Array(1 << 20).fill(0x20))
      },
      cancel() {
        cancelled = true
      },
    })
    mockFetch(() => new Response(endless))
    await expect(home.items(SERVER, { limit: 1, offset: 0 })).rejects.toMatchObject({ fault: 'unreadable' })
    expect(cancelled).toBe(true)
    expect(sent).toBeLessThan(16)
  })
})

describe('a 401', () => {
  const required = () => refusal(401, 'auth.required', 'Unauthorized')

  it('of the server’s own is a refusal, not the end of the session', async () => {
    const ended = vi.fn()
    onSessionEnded(ended)
    const seen = mockFetch(required, () => Response.json({ user: {}, claims: {}, servers: [] }))
    await expect(home.libraries(SERVER)).rejects.toMatchObject({ status: 401 })
    expect(seen[1]?.url).toBe('/api/v1/me')
    expect(ended).not.toHaveBeenCalled()
  })

  it('is the end of the session when the hub says so too', async () => {
    const ended = vi.fn()
    onSessionEnded(ended)
    mockFetch(required, required)
    await expect(home.libraries(SERVER)).rejects.toMatchObject({ status: 401 })
    expect(ended).toHaveBeenCalledOnce()
  })
})

describe('probe', () => {
  it('asks for one byte and leaves the rest', async () => {
    let cancelled = false
    const stream = new ReadableStream({ cancel: () => void (cancelled = true) })
    const seen = mockFetch(() => new Response(stream, { status: 206 }))
    await home.probe(`${BASE}/media/a/stream?exp=1&sig=z`)
    expect(seen[0]?.headers.get('Range')).toBe('bytes=0-0')
    expect(cancelled).toBe(true)
  })

  it('tells why there is none', async () => {
    mockFetch(() => refusal(504, 'gateway.timeout', 'x'))
    await expect(home.probe(`${BASE}/media/a/stream`)).rejects.toMatchObject({ code: 'gateway.timeout' })
  })
})
