import { afterEach, describe, expect, it, vi } from 'vitest'
import { mockFetch, refusal, reply } from '../testing'
import { call, onSessionEnded } from './client'
import { ApiError } from './errors'
import * as hub from './hub'

afterEach(() => vi.unstubAllGlobals())

const CLAIMED = { server_id: 'x', server_name: 'Attic', hub_jwks_url: 'https://hub.example/.well-known/jwks.json' }
const ACCESS = { server_id: 's', direct_url: null, relay_url: null, relay_active: false }

async function failure(promise: Promise<unknown>): Promise<ApiError> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  )
  expect(error).toBeInstanceOf(ApiError)
  return error as ApiError
}

describe('call', () => {
  it('sends JSON to our own origin with the cookie and no token', async () => {
    const seen = mockFetch(() => reply('post', '/api/v1/server-claims/claim', CLAIMED))
    expect(await hub.claim('ABCD-EFGH')).toEqual({ id: 'x', name: 'Attic' })
    expect(seen[0]).toMatchObject({
      method: 'POST',
      url: '/api/v1/server-claims/claim',
      credentials: 'same-origin',
      body: { claim_code: 'ABCD-EFGH' },
    })
    expect(seen[0]?.headers.get('Content-Type')).toBe('application/json')
    expect(seen[0]?.headers.get('Accept-Phlix-Protocol')).toBe('v1')
    expect(seen[0]?.headers.has('Authorization')).toBe(false)
  })

  it('keeps a parameter inside its path segment', async () => {
    const seen = mockFetch(() => reply('get', '/api/v1/me/servers/{id}/access-info', ACCESS))
    await hub.accessInfo('a/../b?c#d e')
    expect(seen[0]?.url).toBe('/api/v1/me/servers/a%2F..%2Fb%3Fc%23d%20e/access-info')
  })

  it.each(['', '.', '..'])('refuses the parameter %j, which would change the path', async (id) => {
    const seen = mockFetch()
    await expect(hub.removeServer(id)).rejects.toBeInstanceOf(TypeError)
    expect(seen).toHaveLength(0)
  })

  it('escapes the query', async () => {
    const seen = mockFetch(() => Response.json({}))
    await hub.claimPreview('A&b=c')
    expect(seen[0]?.url).toBe('/api/v1/server-claims/preview?code=A%26b%3Dc')
  })

  it('returns nothing for 204', async () => {
    mockFetch(() => new Response(null, { status: 204 }))
    expect(await hub.removeServer('x')).toBeUndefined()
  })

  it("tells the hub's code, sentence and status", async () => {
    mockFetch(() => refusal(409, 'claim.code_already_claimed', 'Claim code already used'))
    const error = await failure(hub.claim('ABCD-EFGH'))
    expect(error).toMatchObject({ status: 409, code: 'claim.code_already_claimed', message: 'Claim code already used' })
  })

  it('says how long to wait when there were too many tries', async () => {
    mockFetch(() => refusal(429, 'rate_limited', 'Too Many Requests', { 'Retry-After': '840' }))
    const error = await failure(hub.signIn('a', 'b'))
    expect(error.retryAfter).toBe(840)
    expect(error.message).toBe('Too many attempts. Try again in 14 minutes.')
  })

  it.each([
    ['a page of HTML', new Response('<h1>Bad gateway</h1>', { status: 502, headers: { 'Content-Type': 'text/html' } })],
    ['broken JSON', new Response('{', { status: 500, headers: { 'Content-Type': 'application/json' } })],
    ['a bare string', Response.json('no', { status: 503 })],
  ])('survives %s as an error body', async (_, response) => {
    mockFetch(() => response)
    const error = await failure(hub.servers())
    expect(error.code).toBeUndefined()
    expect(error.message).toMatch(/^The hub has a problem/)
  })

  it('passes on what the hub says about its own trouble', async () => {
    mockFetch(() => refusal(503, 'provider_unavailable', 'Nothing was changed; please try again.'))
    expect((await failure(hub.servers())).message).toBe('Nothing was changed; please try again.')
  })

  it('says that the hub cannot be reached', async () => {
    mockFetch(() => Promise.reject(new TypeError('Failed to fetch')))
    expect(await failure(hub.servers())).toMatchObject({ fault: 'unreachable', status: 0 })
  })

  it('gives up on a hub that never answers', async () => {
    const timeout = new AbortController()
    vi.spyOn(AbortSignal, 'timeout').mockReturnValue(timeout.signal)
    mockFetch(
      (_, signal) =>
        new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason as Error))),
    )
    const answer = failure(hub.servers())
    timeout.abort()
    expect(await answer).toMatchObject({ fault: 'too_slow' })
  })

  it('passes an abort by the caller on as it is', async () => {
    const leaving = new AbortController()
    mockFetch(
      (_, signal) =>
        new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason as Error))),
    )
    const answer = hub.servers(leaving.signal)
    leaving.abort()
    await expect(answer).rejects.toMatchObject({ name: 'AbortError' })
  })
})

describe('the end of the session', () => {
  it('is told once a call is refused for want of one', async () => {
    const ended = vi.fn()
    onSessionEnded(ended)
    mockFetch(() => refusal(401, 'auth.invalid_token', 'Unauthorized'))
    await failure(hub.servers())
    expect(ended).toHaveBeenCalledOnce()
  })

  it('is not a wrong password, nor the question who is here', async () => {
    const ended = vi.fn()
    onSessionEnded(ended)
    mockFetch(
      () => refusal(401, 'auth.invalid_credentials', 'Invalid credentials'),
      () => refusal(401, 'auth.required', 'Unauthorized'),
    )
    await failure(hub.signIn('a', 'b'))
    await failure(hub.me())
    expect(ended).not.toHaveBeenCalled()
  })
})

describe('types', () => {
  it('hold path, parameters and body to the contract', () => {
    // Never run: the compiler is the test.
    const wrong = () => [
      // @ts-expect-error this path has no such method
      call('put', '/api/v1/me', {}),
      // @ts-expect-error the id is missing
      call('get', '/api/v1/me/servers/{id}', {}),
      // @ts-expect-error a claim wants its code
      call('post', '/api/v1/server-claims/claim', { body: { code: 'x' } }),
    ]
    expect(wrong).toBeTypeOf('function')
  })
})
