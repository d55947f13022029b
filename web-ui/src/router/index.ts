/**
 * A file under pages/ is a URL under /app/: `servers/[id].vue` is
 * `/app/servers/:id`. Every page needs a session unless it is listed here.
 */
import { createRouter, createWebHistory, type Router, type RouteRecordRaw, type RouterHistory } from 'vue-router'
import { onSessionEnded } from '../api/client'
import { destination, loginFor } from '../composables/next'
import { forgetSession, knowSession } from '../composables/session'

const PUBLIC = new Set(['/login', '/signup'])

const pages = import.meta.glob<RouteRecordRaw['component']>('../pages/**/*.vue', { import: 'default' })

/** `../pages/servers/[id].vue` -> `/servers/:id`; `[...rest]` takes everything left. */
export function urlOf(file: string): string {
  const path = file
    .replace(/^\.\.\/pages/, '')
    .replace(/\.vue$/, '')
    .replace(/\/index$/, '')
    .replace(/\[\.\.\.(\w+)\]/g, ':$1(.*)*')
    .replace(/\[(\w+)\]/g, ':$1')
  return path === '' ? '/' : path
}

export function makeRouter(
  history: RouterHistory = createWebHistory('/app/'),
  leave: (path: string) => void = (path) => window.location.assign(path),
): Router {
  const routes = Object.entries(pages).map(([file, component]) => ({ path: urlOf(file), component }) as RouteRecordRaw)
  const router = createRouter({
    history,
    routes: [{ path: '/', redirect: '/servers' }, ...routes],
    scrollBehavior: (_to, _from, saved) => saved ?? { top: 0 },
  })

  // First guard: who is it? Second: may they be here? An unreachable hub is
  // neither yes nor no; App.vue then shows that instead of any page.
  router.beforeEach(async (to) => {
    const session = await knowSession()
    const isPublic = PUBLIC.has(to.path)
    if (session.stage === 'signed_out' && !isPublic) return loginFor(to.fullPath)
    if (session.stage === 'signed_in' && isPublic) return enter(to.query.next)
    return true
  })

  function enter(next: unknown): string | false {
    const to = destination(next)
    if (to.kind === 'route') return to.route
    leave(to.path)
    return false
  }

  onSessionEnded(() => {
    forgetSession()
    const here = router.currentRoute.value
    if (!PUBLIC.has(here.path)) void router.replace(loginFor(here.fullPath))
  })

  return router
}
