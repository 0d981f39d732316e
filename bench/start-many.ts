/** Starts COUNT instances of TEMPLATE, WIDTH at a time, as a program that uses the library does. */
import { createContext, parseInstanceName, parseTemplateName, runInstance } from "../src/index.ts";
import { timeAll } from "./measure.ts";

const [template = "", prefix = "", count = "16", width = "4"] = process.argv.slice(2);
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
