import type { Paths } from "./paths.ts";

/** What a long operation says while it works. The CLI turns it into live lines on a terminal and plain lines in a pipe. */
export type Progress =
  /** A new step begins; the one before is over. */
  | { readonly kind: "step"; readonly text: string }
  /** What the step is doing right now; replaces the last one. */
  | { readonly kind: "detail"; readonly text: string }
  /** Something the user should know afterwards too: why a cold boot, what was reused. */
  | { readonly kind: "note"; readonly text: string };

/** What the edge hands in: where files are, the environment, cancellation, and whom to tell. */
export interface Context {
  readonly paths: Paths;
  readonly env: NodeJS.ProcessEnv;
  /** Aborted by Ctrl+C or SIGTERM: whoever waits stops waiting, and cleans up. */
  readonly signal: AbortSignal;
  readonly report: (progress: Progress) => void;
}
