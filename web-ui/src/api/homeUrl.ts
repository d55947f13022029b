/**
 * A home server's paths on the hub's origin: its answers name them, and the
 * hub passes them on below `/api/v1/servers/{id}/proxy/`.
 */

/** Longer than any signed path of a Phlix server. */
const MAX_LENGTH = 2048

/**
 * Path and query as the server wrote them (it signed them), for an attribute
 * of `<img>` or `<video>`; `undefined` for all that is not plainly a path of
 * the same server. No `%`, no empty, `.` or `..` segment: a browser would
 * resolve those, and `/../../auth/logout` would then be a request to the hub.
 */
export function proxied(server: string, url: unknown): string | undefined {
  if (typeof url !== 'string' || url.length > MAX_LENGTH) return undefined
  const parts = /^((?:\/[\w.~-]+)+)(\?[\w.~%&=+:,/-]*)?$/.exec(url)
  const path = parts?.[1]
  if (path === undefined || /\/\.{1,2}(?:\/|$)/.test(path)) return undefined
  return `${base(server)}${url}`
}

/** Where the hub passes on to this server. */
export function base(server: string): string {
  return `/api/v1/servers/${encodeURIComponent(server)}/proxy`
}
