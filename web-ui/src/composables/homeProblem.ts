/** Why a home server's answer did not come, in words, and what helps. */
import type { ApiError } from '../api/errors'
import { wait } from '../api/errors'

export interface HomeProblem {
  heading: string
  text: string
  /** It passes by itself: a page that shows it looks again from time to time. */
  passes: boolean
}

/** How often a page looks again while the problem is one that passes. */
export const LOOK_AGAIN_MS = 8_000

/**
 * By the codes of the hub's proxy. What the server itself says in words is
 * never shown: it could say anything, in the hub's name.
 */
export function homeProblem(error: ApiError): HomeProblem {
  switch (error.code) {
    case 'server.offline':
      return passing('This server is offline', 'Nothing was heard from it for some minutes. Check that it is switched on and has a network.')
    case 'server.relay_unavailable':
    case 'server.no_tunnel':
      return passing('This server is not connected', 'It runs, but it has no tunnel to the hub just now. It should be back within a minute.')
    case 'proxy.scope_denied':
      return lasting('The hub does not pass this on', 'It is outside of what is allowed through the hub.')
    case 'quota.exceeded':
      return lasting('The data limit is reached', 'This account has used what it may use this month.')
    case 'stream.limit':
      return passing('Too many streams at once', 'This account plays as many streams as it may. Stop another one.')
    case 'server.not_owned':
    case 'server.not_found':
      return lasting('You have no such server', 'It was removed, or it belongs to another account.')
    case 'server.use_name':
      return lasting('This server has pages of its own', 'It is opened at its own name, not here.')
  }
  if (error.fault === 'unreachable') return passing('The hub does not answer', 'Check the connection of this device.')
  if (error.fault === 'unreadable') return lasting('The server answered something else', 'Its answer is not what a Phlix server says. It may be of another version.')
  if (error.fault === 'too_slow' || error.status === 504) return lasting('The server is slow to answer', 'It took too long. It may be busy, or its connection poor.')
  if (error.status === 429) return lasting('Too many requests', `Try again ${wait(error.retryAfter)}.`)
  if (error.status === 502) return lasting('The server broke off', 'It gave no whole answer.')
  if (error.status === 404) return lasting('The server has nothing here', 'It was removed from the library, or never was in it.')
  if (error.status === 401 || error.status === 403) return lasting('The server refuses this', 'It does not let this account see it.')
  return lasting('The server has a problem', `It answered with an error (${error.status}).`)
}

function passing(heading: string, text: string): HomeProblem {
  return { heading, text, passes: true }
}

function lasting(heading: string, text: string): HomeProblem {
  return { heading, text, passes: false }
}
