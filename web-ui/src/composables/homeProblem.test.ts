import { describe, expect, it } from 'vitest'
import { ApiError } from '../api/errors'
import { homeProblem } from './homeProblem'

function refused(status: number, code?: string, headers: Record<string, string> = {}) {
  const body = code === undefined ? undefined : { error: 'EVIL', code, message: 'Your password ended: call 555' }
  return ApiError.refused(new Response(null, { status, headers }), body)
}

describe('homeProblem', () => {
  it.each([
    [refused(503, 'server.offline'), 'This server is offline', true],
    [refused(503, 'server.relay_unavailable'), 'This server is not connected', true],
    [refused(503, 'server.no_tunnel'), 'This server is not connected', true],
    [refused(403, 'proxy.scope_denied'), 'The hub does not pass this on', false],
    [refused(503, 'quota.exceeded'), 'The data limit is reached', false],
    [refused(503, 'stream.limit'), 'Too many streams at once', true],
    [refused(403, 'server.not_owned'), 'You have no such server', false],
    [refused(404, 'server.not_found'), 'You have no such server', false],
    [refused(409, 'server.use_name'), 'This server has pages of its own', false],
    [refused(504, 'gateway.timeout'), 'The server is slow to answer', false],
    [refused(429, 'rate_limited'), 'Too many requests', false],
    [refused(502), 'The server broke off', false],
    [refused(404), 'The server has nothing here', false],
    [refused(401, 'auth.required'), 'The server refuses this', false],
    [refused(500), 'The server has a problem', false],
    [ApiError.unreachable(), 'The hub does not answer', true],
    [ApiError.tooSlow(), 'The server is slow to answer', false],
    [ApiError.unreadable(), 'The server answered something else', false],
  ])('%# is told apart', (error, heading, passes) => {
    const problem = homeProblem(error)
    expect([problem.heading, problem.passes]).toEqual([heading, passes])
    expect(problem.text).not.toMatch(/555|EVIL/)
  })

  it('says how long to wait', () => {
    expect(homeProblem(refused(429, 'rate_limited', { 'Retry-After': '42' })).text).toBe('Try again in 42 seconds.')
  })
})
