/** Addresses that servers gave us. */

/**
 * The address when it may become a link, else `undefined`. Home servers choose
 * what they report: `javascript:` and its kin stay text.
 */
export function webUrl(address: string | null | undefined): string | undefined {
  if (!address || !/^https?:\/\//i.test(address)) return undefined
  try {
    const url = new URL(address)
    return url.username === '' && url.password === '' ? url.href : undefined
  } catch {
    return undefined
  }
}
