/** Where the keyboard goes after a form was refused. */
import { nextTick } from 'vue'

/** Focuses the first field of the form that has a complaint. */
export async function focusFirstComplaint(submit: Event): Promise<void> {
  const form = submit.target
  await nextTick()
  if (form instanceof HTMLElement) form.querySelector<HTMLElement>('[aria-invalid="true"]')?.focus()
}
