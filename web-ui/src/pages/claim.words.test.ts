import { expect, it } from 'vitest'
import { ApiError } from '../api/errors'
import { claimRefusal } from './claim.words'

function refused(status: number, code: string, headers = {}): ApiError {
  return ApiError.refused(new Response(null, { status, headers }), { error: 'x', code, message: `hub says ${code}` })
}

it.each([
  [refused(401, 'auth.unauthenticated'), 'You are signed out'],
  [refused(404, 'claim.code_not_found'), 'No server asks with this code'],
  [refused(409, 'claim.code_already_claimed'), 'already claimed'],
  [refused(409, 'quota.exceeded'), 'as many servers as this hub allows'],
  [refused(410, 'claim.code_expired'), 'has expired'],
  [refused(429, 'rate_limited', { 'Retry-After': '30' }), 'in 30 seconds'],
  [refused(400, 'invalid_request'), 'hub says invalid_request'],
  [ApiError.unreachable(), 'cannot be reached'],
])('%o is explained', (error, words) => expect(claimRefusal(error)).toContain(words))
