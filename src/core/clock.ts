/**
 * Milliseconds that never jump, for durations. As `performance.now()`, for which Node loads ten modules: a command that takes
 * 200 ms in all feels them.
 */
export function monotonicMs(): number {
  const [seconds, nanoseconds] = process.hrtime();
  return seconds * 1000 + nanoseconds / 1e6;
}
