/** Claim codes as people type and paste them. */

/** `XXXX-XXXX` from whatever was typed: case, spaces and dashes don't matter. */
export function tidyCode(typed: string): string {
  const bare = typed
    .toUpperCase()
    .replace(/[^A-Z0-9]/g, '')
    .slice(0, 8)
  return bare.length > 4 ? `${bare.slice(0, 4)}-${bare.slice(4)}` : bare
}

export function isWhole(code: string): boolean {
  return /^[A-Z0-9]{4}-[A-Z0-9]{4}$/.test(code)
}
