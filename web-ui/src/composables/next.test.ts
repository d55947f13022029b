import { describe, expect, it } from 'vitest'
import { destination, HOME, loginFor, safeNext } from './next'

describe('safeNext', () => {
  it.each([
    '/app/servers',
    '/app/claim?code=ABCD-EFGH',
    '/authorize-name?host=ab.hub.localhost&state=x&challenge=y',
    '/authorize-name?host=ab.hub.localhost%3A8443&return=%2F%2Fevil.example',
    '/app/servers/1#names',
    '/',
  ])('keeps %s', (next) => expect(safeNext(next)).toBe(next))

  it.each([
    ['another host', 'https://evil.example/'],
    ['a script', 'javascript:alert(1)'],
    ['a host without scheme', '//evil.example/'],
    ['three slashes', '///evil.example/'],
    ['a backslash', '/\\evil.example/'],
    ['a later backslash', '/app\\..\\evil'],
    ['a tab that browsers drop', '/\t/evil.example/'],
    ['a line end that browsers drop', '/\n/evil.example/'],
    ['a leading space', ' /app'],
    ['a NUL', '/app\0'],
    ['no slash', 'app/servers'],
    ['nothing', ''],
    ['several', ['/app/servers', '/app/claim']],
    ['none', undefined],
    ['null', null],
    ['too much', `/${'a'.repeat(5000)}`],
  ])('goes home instead of to %s', (_, next) => {
    expect(safeNext(next)).toBe(HOME)
    const url = new URL(safeNext(next), 'https://hub.example')
    expect(url.origin).toBe('https://hub.example')
  })
})

describe('destination', () => {
  it('stays in the app for its own pages', () => {
    expect(destination('/app/claim?code=ABCD-EFGH')).toEqual({ kind: 'route', route: '/claim?code=ABCD-EFGH' })
  })

  it("leaves the app for the hub's other documents", () => {
    const path = '/authorize-name?host=ab.hub.localhost&state=x&challenge=y'
    expect(destination(path)).toEqual({ kind: 'document', path })
    expect(destination('/application')).toEqual({ kind: 'document', path: '/application' })
  })

  it.each(['/app', '/app/', '/app?x', '/app/login', '/app/login?next=/app/login', '/app/signup/', '/app/LOGIN#x', '/app//login'])(
    'does not go round in circles for %s',
    (next) => expect(destination(next)).toEqual({ kind: 'route', route: '/servers' }),
  )

  it('comes back to the route that asked for a sign-in', () => {
    expect(destination(loginFor('/claim?code=ABCD-EFGH').query.next)).toEqual({
      kind: 'route',
      route: '/claim?code=ABCD-EFGH',
    })
  })
})
