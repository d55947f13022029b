/** Why a claim did not come about, for the person at the page. */
import { ApiError, wait } from '../api/errors'
import { sentence } from '../composables/action'

export function claimRefusal(error: unknown): string {
  if (!(error instanceof ApiError)) return sentence(error)
  switch (error.status) {
    case 401:
      return 'You are signed out. Sign in and try again.'
    case 404:
      return 'No server asks with this code. Check it against what the agent printed.'
    case 409:
      return error.code === 'quota.exceeded'
        ? 'You have as many servers as this hub allows. Remove one first.'
        : 'This server was already claimed.'
    case 410:
      return 'This code has expired. The agent prints a new one; use that.'
    case 429:
      return `Too many tries with claim codes. Try again ${wait(error.retryAfter)}.`
    default:
      return error.message
  }
}
