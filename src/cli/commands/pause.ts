import { parseInstanceName } from "../../core/names.ts";
import { pauseInstance } from "../../instance/pause.ts";
import type { Page } from "../page.ts";

export const page: Page = {
  summary: "Stop an instance's CPUs",
  description: "Its memory stays, and it takes no CPU time until `resume`.",
  define: (command) => command.argument("<name>"),
  examples: ["mvmctl pause svc"],
  json: true,
  async run(cli, [text = ""]) {
    const name = parseInstanceName(text);
    await pauseInstance(cli, name);
    cli.print({ paused: name }, () => `${name} is paused.\n`);
  },
};
