/**
 * Where to go after signing in. `?next=` comes from a link, so from a
 * stranger: it may only ever be a path on this hub.
 */

/** The page a signed-in person lands on. */
export const HOME = '/app/servers'

/** Longer than any path of ours, shorter than what a server refuses. */
const MAX_LENGTH = 4096

/**
 * `next` when it is a path on this hub, else `HOME`. A browser reads `//x`
 * and `/\x` as another host, and drops tabs and line ends before it looks.
 */
export function safeNext(next: unknown): string {
  if (typeof next !== 'string' || next.length > MAX_LENGTH) return HOME
  // eslint-disable-next-line no-control-regex -- these are the characters that must not be there
  if (!/^\/(?!\/)[^\\\x00-\x20\x7f]*$/.test(next)) return HOME
  return next
}

export type Destination =
  /** A route of the SPA. */
  | { kind: 'route'; route: string }
  /** Another document of the hub: a name's sign-in, say. */
  | { kind: 'document'; path: string }

/** Where `?next=` leads someone who is signed in; never back to the sign-in pages. */
export function destination(next: unknown): Destination {
  const path = safeNext(next)
  if (!/^\/app(?=[/?#]|$)/.test(path)) return { kind: 'document', path }
  const route = path.slice('/app'.length)
  const signIn = /^\/*(?:login|signup)?\/*(?=[?#]|$)/i.test(route)
  return { kind: 'route', route: signIn ? HOME.slice('/app'.length) : route }
}

/** The sign-in page that leads back to this route of the SPA. */
export function loginFor(fullPath: string): { path: string; query: { next: string } } {
  return { path: '/login', query: { next: `/app${fullPath}` } }
}
