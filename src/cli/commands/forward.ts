import { parseInstanceName } from "../../core/names.ts";
import { forwardPorts } from "../../instance/forward.ts";
import { parsePortForward } from "../../instance/ports.ts";
import type { Page } from "../page.ts";

export const page: Page = {
  summary: "Forward ports to a running instance",
  description: "Runs until Ctrl+C. Ports that are known at the start are better published with `run -p`.",
  define: (command) =>
    command
      .argument("<name>")
      .argument("<host:guest...>", "`3000` alone reaches the guest's port 3000 from any free host port"),
  examples: ["mvmctl forward svc 3000:3000", "mvmctl forward svc 0.0.0.0:8080:80 5432:5432"],
  json: false,
  async run(cli, [name = "", ...texts]) {
    const forwards = texts.map(parsePortForward);
    await forwardPorts(cli, parseInstanceName(name), forwards, (listening) => {
      for (const { hostAddress, hostPort, guestPort } of listening) {
        cli.stderr.write(`${hostAddress}:${hostPort} reaches port ${guestPort} of ${name}\n`);
      }
    });
  },
};
