/** For tests: a hub that answers from a list, its bodies typed by the contract; and a place for composables to live. */
import { createApp, defineComponent, type App } from 'vue'
import { vi } from 'vitest'
import type { PathsWith, Reply } from './api/client'

export interface Seen {
  method: string
  url: string
  headers: Headers
  credentials: RequestCredentials | undefined
  body: unknown
}

type Handler = (seen: Seen, signal: AbortSignal) => Response | Promise<Response>

/** A success body that the contract allows for this call. */
export function reply<M extends 'get' | 'post' | 'put' | 'delete', P extends PathsWith<M> & string>(
  _method: M,
  _path: P,
  body: Reply<M, P>,
  status = 200,
): Response {
  if (body === undefined) return new Response(null, { status: 204 })
  return Response.json(body, { status })
}

export function refusal(status: number, code: string, message: string, headers: Record<string, string> = {}): Response {
  return Response.json({ error: message, code, message }, { status, headers })
}

/** Replaces `fetch`; what it saw, in order. An unexpected call fails the test. */
export function mockFetch(...handlers: Handler[]): Seen[] {
  const seen: Seen[] = []
  vi.stubGlobal('fetch', (url: string, init: RequestInit) => {
    const one: Seen = {
      method: init.method ?? 'GET',
      url,
      headers: new Headers(init.headers),
      credentials: init.credentials,
      body: typeof init.body === 'string' ? JSON.parse(init.body) : undefined,
    }
    const handler = handlers[seen.length]
    seen.push(one)
    if (!handler) return Promise.reject(new Error(`unexpected call: ${one.method} ${url}`))
    return Promise.resolve(handler(one, init.signal as AbortSignal))
  })
  return seen
}

/** Runs a composable inside a component; `unmount` ends it. */
export function live<T>(setup: () => T): { result: T; app: App } {
  let result: T | undefined
  const app = createApp(
    defineComponent(() => {
      result = setup()
      return () => null
    }),
  )
  app.mount(document.createElement('div'))
  return { result: result as T, app }
}

/** Lets everything that is ready happen. */
export async function settle(): Promise<void> {
  for (let turn = 0; turn < 20; turn += 1) await Promise.resolve()
}
