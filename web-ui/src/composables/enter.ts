/** What follows a sign-in: on to where the person was going. */
import { useRoute, useRouter } from 'vue-router'
import { destination } from './next'

export function useEnter(leave: (path: string) => void = (path) => window.location.assign(path)): () => Promise<void> {
  const route = useRoute()
  const router = useRouter()
  return async () => {
    const to = destination(route.query.next)
    if (to.kind === 'route') await router.replace(to.route)
    else leave(to.path)
  }
}
