/** Starts COUNT instances of TEMPLATE, WIDTH at a time, as a program that uses the published LIBRARY does. */
import { timeAll } from "./measure.ts";

const [library = "", template = "", prefix = "", count = "16", width = "4"] = process.argv.slice(2);
const { createContext, parseInstanceName, parseTemplateName, runInstance } = (await import(
  library
)) as typeof import("../src/index.ts");
const ctx = createContext();
await timeAll(Number(count), Number(width), (index) =>
  runInstance(ctx, {
    template: parseTemplateName(template),
    name: parseInstanceName(`${prefix}${index}`),
    ports: [],
    volumes: [],
    env: {},
    cold: false,
    waitFor: "running",
    timeoutMs: 120_000,
  }),
);
process.exit(0);
