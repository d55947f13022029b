/** Times as the hub sends them, and as people say them. */
import { onScopeDispose, readonly, ref, type Ref } from 'vue'

/** Unix seconds, or the older `Y-m-d H:i:s` in UTC. */
export type HubTime = number | string | null | undefined

export function toDate(time: HubTime): Date | undefined {
  if (time === null || time === undefined) return undefined
  const date =
    typeof time === 'number'
      ? new Date(time * 1000)
      : new Date(/^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$/.test(time) ? `${time.replace(' ', 'T')}Z` : time)
  return Number.isNaN(date.getTime()) ? undefined : date
}

const STEPS: [Intl.RelativeTimeFormatUnit, number][] = [
  ['day', 86_400],
  ['hour', 3_600],
  ['minute', 60],
]

/** "5 minutes ago"; anything within the last 45 seconds is "just now". */
export function ago(date: Date, now: Date): string {
  const seconds = Math.round((date.getTime() - now.getTime()) / 1000)
  if (Math.abs(seconds) < 45) return 'just now'
  const format = new Intl.RelativeTimeFormat('en', { numeric: 'auto' })
  const [unit, size] = STEPS.find(([, step]) => Math.abs(seconds) >= step) ?? (['minute', 60] as const)
  return format.format(Math.round(seconds / size) || -1, unit)
}

/** "3 d 4 h", "12 min": how long something has been running. */
export function duration(seconds: number): string {
  const whole = Math.max(0, Math.floor(seconds))
  const days = Math.floor(whole / 86_400)
  const hours = Math.floor((whole % 86_400) / 3_600)
  const minutes = Math.floor((whole % 3_600) / 60)
  if (days > 0) return `${days} d ${hours} h`
  if (hours > 0) return `${hours} h ${minutes} min`
  return minutes > 0 ? `${minutes} min` : `${whole} s`
}

/** The time of day, moving on while a component shows it. */
export function useNow(everyMs = 10_000): Readonly<Ref<Date>> {
  const now = ref(new Date())
  const timer = setInterval(() => {
    now.value = new Date()
  }, everyMs)
  onScopeDispose(() => clearInterval(timer))
  return readonly(now) as Readonly<Ref<Date>>
}
