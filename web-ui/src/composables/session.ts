/**
 * Who is signed in. The truth is the hub's: an HttpOnly cookie that no script
 * can read, and `GET /api/v1/me` to ask what it stands for.
 */
import { readonly, shallowRef } from 'vue'
import { ApiError } from '../api/errors'
import * as hub from '../api/hub'
import type { User } from '../api/types'

export type Session =
  | { stage: 'unknown' }
  | { stage: 'unreachable'; error: ApiError }
  | { stage: 'signed_out' }
  | { stage: 'signed_in'; user: User }

const current = shallowRef<Session>({ stage: 'unknown' })

let asking: Promise<Session> | undefined

export const session = readonly(current)

/** Asks the hub, unless the answer is already known. */
export async function knowSession(): Promise<Session> {
  const { stage } = current.value
  return stage === 'unknown' || stage === 'unreachable' ? askSession() : current.value
}

/** Asks the hub now; those who ask at the same time share one call. */
export function askSession(): Promise<Session> {
  asking ??= ask().finally(() => {
    asking = undefined
  })
  return asking
}

async function ask(): Promise<Session> {
  try {
    current.value = { stage: 'signed_in', user: await hub.me() }
  } catch (error) {
    if (!(error instanceof ApiError)) throw error
    // 404: the account behind the cookie is gone.
    const gone = error.status === 401 || error.status === 404
    current.value = gone ? { stage: 'signed_out' } : { stage: 'unreachable', error }
  }
  return current.value
}

/** A call found the session over. */
export function forgetSession(): void {
  current.value = { stage: 'signed_out' }
}

export class NoCookieError extends Error {
  constructor() {
    super(
      'The hub accepted you, but this browser kept no session. Open the hub at its own public address, and allow cookies for it.',
    )
  }
}

export async function signIn(username: string, password: string): Promise<void> {
  await hub.signIn(username, password)
  await entered()
}

export async function signUp(username: string, email: string, password: string): Promise<void> {
  await hub.signUp(username, email, password)
  await entered()
}

/** The cookie comes only where our Origin is the hub's public one: look whether it did. */
async function entered(): Promise<void> {
  const now = await askSession()
  if (now.stage === 'unreachable') throw now.error
  if (now.stage !== 'signed_in') throw new NoCookieError()
}

export async function signOut(): Promise<void> {
  await hub.signOut()
  forgetSession()
}
