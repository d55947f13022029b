import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import type { Reply } from '../api/client'
import type { User } from '../api/types'
import { mockFetch, refusal, reply } from '../testing'

const ADA: User = {
  id: '0b0e5a55-0000-4000-8000-000000000001',
  username: 'ada',
  email: 'ada@example.org',
  display_name: 'Ada',
  is_admin: 1,
  created_at: '2026-11-24 10:00:00',
  updated_at: '2026-11-24 10:00:00',
}

const CLAIMS: Reply<'get', '/api/v1/me'>['claims'] = {
  iss: 'phlix-hub',
  aud: 'hub',
  sub: ADA.id,
  sid: '0b0e5a55-0000-4000-8000-000000000002',
  iat: 1_795_521_600,
  exp: 1_795_525_200,
  type: 'access',
}

const ENTERED: Reply<'post', '/api/v1/auth/login'> = {
  access_token: 'a.b.c',
  refresh_token: 'd.e.f',
  token_type: 'Bearer',
  expires_in: 3_600,
  user_id: ADA.id,
  user: ADA,
  claims: CLAIMS,
}

const meReply = () => reply('get', '/api/v1/me', { user: ADA, claims: CLAIMS, servers: [] })
const entered = () => reply('post', '/api/v1/auth/login', ENTERED)
const signedOut = () => refusal(401, 'auth.required', 'Unauthorized')

let session: typeof import('./session')

beforeEach(async () => {
  vi.resetModules()
  session = await import('./session')
})

afterEach(() => vi.unstubAllGlobals())

describe('session', () => {
  it('asks the hub once, also when two ask together', async () => {
    const seen = mockFetch(meReply)
    await Promise.all([session.knowSession(), session.knowSession()])
    await session.knowSession()
    expect(seen).toHaveLength(1)
    expect(session.session.value).toEqual({ stage: 'signed_in', user: ADA })
  })

  it.each([
    ['without a cookie', signedOut],
    ['when the account is gone', () => refusal(404, 'user.not_found', 'User not found')],
  ])('is signed out %s', async (_, answer) => {
    mockFetch(answer)
    expect(await session.knowSession()).toEqual({ stage: 'signed_out' })
  })

  it('knows neither yes nor no while the hub is away, and asks again later', async () => {
    mockFetch(() => Promise.reject(new TypeError('Failed to fetch')), meReply)
    expect(await session.knowSession()).toMatchObject({ stage: 'unreachable' })
    expect(await session.knowSession()).toMatchObject({ stage: 'signed_in' })
  })

  it('is what the hub says after a sign-in', async () => {
    const seen = mockFetch(entered, meReply)
    await session.signIn('ada', 'correct horse')
    expect(seen[0]?.body).toEqual({ username: 'ada', password: 'correct horse' })
    expect(session.session.value.stage).toBe('signed_in')
  })

  it('says so when the browser kept no cookie', async () => {
    mockFetch(entered, signedOut)
    await expect(session.signIn('ada', 'correct horse')).rejects.toBeInstanceOf(session.NoCookieError)
  })

  it('keeps nothing where scripts can read it', async () => {
    mockFetch(entered, meReply)
    await session.signIn('ada', 'correct horse')
    expect(localStorage).toHaveLength(0)
    expect(sessionStorage).toHaveLength(0)
    expect(JSON.stringify(session.session.value)).not.toContain('a.b.c')
  })

  it('ends with a sign-out', async () => {
    mockFetch(meReply, () => new Response(null, { status: 204 }))
    await session.knowSession()
    await session.signOut()
    expect(session.session.value).toEqual({ stage: 'signed_out' })
  })

  it('stays when the sign-out did not reach the hub', async () => {
    mockFetch(meReply, () => Promise.reject(new TypeError('Failed to fetch')))
    await session.knowSession()
    await expect(session.signOut()).rejects.toThrow('cannot be reached')
    expect(session.session.value.stage).toBe('signed_in')
  })
})
