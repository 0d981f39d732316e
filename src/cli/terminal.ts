interface Size {
  readonly rows: number;
  readonly cols: number;
}

export interface RawTerminal {
  size(): Size;
  /** Calls back whenever the terminal's size changes. */
  readonly onResize: (resize: (size: Size) => void) => void;
  /** Gives the terminal back as it was. May be called more than once. */
  restore(): void;
}

/** Hands every key to the guest, Ctrl+C too, until it is restored. */
export function useRawTerminal(stdin: NodeJS.ReadStream, stdout: NodeJS.WriteStream): RawTerminal {
  const size = () => ({ rows: stdout.rows || 24, cols: stdout.columns || 80 });
  let onResize: (() => void) | undefined;
  const restore = () => {
    stdin.setRawMode(false);
    if (onResize) stdout.removeListener("resize", onResize);
    process.removeListener("exit", restore);
  };
  stdin.setRawMode(true);
  process.once("exit", restore);
  return {
    size,
    onResize: (resize) => {
      onResize = () => resize(size());
      stdout.on("resize", onResize);
    },
    restore,
  };
}
