import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { createMemoryHistory, type Router } from 'vue-router'
import { mockFetch, refusal } from '../testing'

const here = () => Response.json({ user: { id: 'u', username: 'ada' }, servers: [] })
const nobody = () => refusal(401, 'auth.required', 'Unauthorized')

let leave: ReturnType<typeof vi.fn<(path: string) => void>>
let urlOf: (file: string) => string
let router: Router

beforeEach(async () => {
  vi.resetModules()
  const module = await import('./index')
  leave = vi.fn()
  urlOf = module.urlOf
  router = module.makeRouter(createMemoryHistory('/app/'), leave)
})

afterEach(() => vi.unstubAllGlobals())

describe('pages', () => {
  it.each([
    ['../pages/login.vue', '/login'],
    ['../pages/index.vue', '/'],
    ['../pages/servers/index.vue', '/servers'],
    ['../pages/servers/[id].vue', '/servers/:id'],
    ['../pages/[...rest].vue', '/:rest(.*)*'],
  ])('%s is %s', (file, url) => expect(urlOf(file)).toBe(url))

  it.each(['/login', '/signup', '/servers', '/servers/x', '/claim', '/no/such/page'])('%s has one', (path) =>
    expect(router.resolve(path).matched).toHaveLength(1),
  )
})

describe('guards', () => {
  it.each(['/servers', '/servers/x', '/claim?code=ABCD-EFGH', '/no/such/page'])('%s needs a session', async (path) => {
    mockFetch(nobody)
    await router.push(path)
    expect(router.currentRoute.value.path).toBe('/login')
    expect(router.currentRoute.value.query.next).toBe(`/app${path}`)
  })

  it('lets a signed-in person on', async () => {
    mockFetch(here)
    await router.push('/claim?code=ABCD-EFGH')
    expect(router.currentRoute.value.fullPath).toBe('/claim?code=ABCD-EFGH')
  })

  it('takes a signed-in person past the sign-in page', async () => {
    mockFetch(here)
    await router.push('/login?next=/app/claim')
    expect(router.currentRoute.value.path).toBe('/claim')
    expect(leave).not.toHaveBeenCalled()
  })

  it("leaves for a name's sign-in, never for another host", async () => {
    mockFetch(here)
    await router.push({ path: '/login', query: { next: '/authorize-name?host=ab.hub.localhost' } })
    expect(leave).toHaveBeenCalledExactlyOnceWith('/authorize-name?host=ab.hub.localhost')
    await router.push({ path: '/login', query: { next: '//evil.example/' } })
    expect(leave).toHaveBeenCalledOnce()
    expect(router.currentRoute.value.path).toBe('/servers')
  })

  it('does not send anyone to sign in because the hub is away', async () => {
    mockFetch(() => Promise.reject(new TypeError('Failed to fetch')))
    await router.push('/servers')
    expect(router.currentRoute.value.path).toBe('/servers')
  })
})

it('a session that ends leads to the sign-in page and back', async () => {
  mockFetch(here, nobody)
  await router.push('/servers/x')
  const hub = await import('../api/hub')
  await hub.servers().catch(() => undefined)
  await vi.waitFor(() => expect(router.currentRoute.value.path).toBe('/login'))
  expect(router.currentRoute.value.query.next).toBe('/app/servers/x')
})
