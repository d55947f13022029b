import { describe, expect, it } from 'vitest'
import { proxied } from './homeUrl'

const SERVER = '0b0e5a55-0000-4000-8000-000000000001'
const BASE = `/api/v1/servers/${SERVER}/proxy`

describe('proxied', () => {
  it.each([
    '/api/v1/artwork/aaaaaaaa-0000-4000-8000-000000000001?size=w342&exp=1790000000&sig=zz',
    '/media/aaaa/stream',
    '/media/aaaa/stream?exp=1790000000&sig=a%2Bb%2Fc%3D%3D',
    '/hls/job-0001/master.m3u8?exp=1&sig=z',
    '/a/.well-known/..b/c..',
  ])('leads %s to the proxy, byte for byte', (url) => {
    const mapped = proxied(SERVER, url)
    expect(mapped).toBe(BASE + url)
    // A browser resolves nothing in it: it stays below the proxy.
    const read = new URL(mapped ?? '', 'https://hub.example')
    expect(read.origin + read.pathname + read.search).toBe(`https://hub.example${BASE}${url}`)
  })

  it.each([
    'https://evil.example/x.png',
    '//evil.example/x.png',
    '/\\evil.example/x.png',
    'javascript:alert(1)',
    'data:image/svg+xml,<svg onload=alert(1)>',
    'api/v1/artwork/a',
    '/api/v1/artwork/../../../../../auth/logout',
    '/api/v1/artwork/%2e%2e/%2e%2e/auth/logout',
    '/api/v1/artwork/.',
    '/..',
    '/a//b',
    '/a/b/',
    '/a%2fb',
    '/a;b',
    '/a b',
    '/a\tb',
    '/a\n',
    '/a#b',
    '/a?b#c',
    '/a?b"onerror=alert(1)',
    '/a?<script>',
    `/${'a'.repeat(2048)}`,
    '/',
    '',
    null,
    undefined,
    7,
    { toString: () => '/a' },
  ])('leaves %j out', (url) => expect(proxied(SERVER, url)).toBeUndefined())
})
