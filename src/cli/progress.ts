import { monotonicMs } from "../core/clock.ts";
import type { Progress } from "../core/context.ts";
import { formatMs } from "../core/sizes.ts";
import type { Style } from "./cli.ts";

/** Shows what a long operation does: a live line on a terminal, a line per step in a pipe. */
export interface ProgressView {
  report(progress: Progress): void;
  /** Ends the live line; `ok` says whether the step it was about succeeded. */
  settle(ok: boolean): void;
}

const FRAMES = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];
const FRAME_MS = 100;
/** Steps that end sooner leave no line behind on a terminal: they would only be noise. */
const WORTH_A_LINE_MS = 300;

export function progressView(stream: NodeJS.WriteStream, style: Style): ProgressView {
  return stream.isTTY ? liveView(stream, style) : plainView(stream);
}

function plainView(stream: NodeJS.WriteStream): ProgressView {
  return {
    report: (progress) => {
      if (progress.kind !== "detail") stream.write(`${progress.kind === "note" ? "  " : ""}${progress.text}\n`);
    },
    settle: () => {},
  };
}

function liveView(stream: NodeJS.WriteStream, style: Style): ProgressView {
  let step: { text: string; startedAt: number } | undefined;
  let detail = "";
  let timer: NodeJS.Timeout | undefined;

  const clear = () => stream.write("\r\x1b[2K");
  const draw = () => {
    if (!step) return;
    const elapsed = monotonicMs() - step.startedAt;
    const frame = FRAMES[Math.floor(elapsed / FRAME_MS) % FRAMES.length];
    const time = elapsed < 1000 ? "" : ` ${formatMs(elapsed)}`;
    const head = `${frame} ${step.text}${time}`;
    const room = Math.max(0, (stream.columns || 80) - head.length - 2);
    const tail = detail.length > room ? `${detail.slice(0, Math.max(0, room - 1))}…` : detail;
    clear();
    stream.write(`${head}${room > 10 && tail ? `  ${style.dim(tail)}` : ""}`);
  };
  const finish = (ok: boolean) => {
    clearInterval(timer);
    if (!step) return;
    const elapsed = monotonicMs() - step.startedAt;
    clear();
    if (!ok) stream.write(`${style.red("✗")} ${step.text}\n`);
    else if (elapsed >= WORTH_A_LINE_MS)
      stream.write(`${style.green("✓")} ${step.text}  ${style.dim(formatMs(elapsed))}\n`);
    step = undefined;
    detail = "";
  };
  return {
    report: (progress) => {
      switch (progress.kind) {
        case "step":
          finish(true);
          step = { text: progress.text, startedAt: monotonicMs() };
          timer = setInterval(draw, FRAME_MS);
          timer.unref();
          break;
        case "detail":
          detail = progress.text;
          return;
        case "note":
          clear();
          stream.write(`  ${style.dim(progress.text)}\n`);
      }
      draw();
    },
    settle: finish,
  };
}
