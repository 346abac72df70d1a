/** Whether it resolves without a turn of the event loop: nothing was waited for. */
export async function atOnce(work: () => Promise<unknown>): Promise<boolean> {
  let turned = false
  setImmediate(() => {
    turned = true
  })
  await work()
  return !turned
}
