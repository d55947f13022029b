/** What the hub tells an owner of a server, in the words above its sentence. */

const HEADINGS: Record<string, string> = {
  'tunnel.plain': 'Connected without encryption',
  'tunnel.new_address': 'Connected from a new address',
  'credentials.old': 'Old credentials were used',
}

/** A kind that is not known here is still shown, with the hub's own sentence. */
export function noticeHeading(kind: string): string {
  return (Object.hasOwn(HEADINGS, kind) ? HEADINGS[kind] : undefined) ?? 'Something to look at'
}

/** Somebody may have a copy of its credentials: ending them is what helps. */
export function suspectsACopy(kind: string): boolean {
  return kind === 'tunnel.new_address' || kind === 'credentials.old'
}
