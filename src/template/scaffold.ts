import { GUEST_LIBRARY } from "../nix/flake.ts";
import { nixSystem } from "../nix/nix.ts";
import type { PackageSet, Preset } from "./presets.ts";

/** Of NixOS: the newest stable branch when this was written. A template's flake.lock pins its commit. */
const NIXPKGS = "github:NixOS/nixpkgs/nixos-25.11";

export interface ScaffoldRequest {
  readonly name: string;
  readonly preset: Preset;
  readonly pkgs: PackageSet;
}

/** The files of a new template, by their names. */
export function scaffold(request: ScaffoldRequest): Record<string, string> {
  return { "flake.nix": flakeNix(request), ".gitignore": GITIGNORE, "README.md": readme(request) };
}

const GITIGNORE = `# What \`nix build\` leaves behind.
/result
/result-*
`;

function flakeNix({ name, preset, pkgs }: ScaffoldRequest): string {
  const host = pkgs === "host";
  const bindings = [
    `system = ${nixString(nixSystem())};`,
    host ? "" : `pkgs = nixpkgs.legacyPackages.\${system};`,
    preset.bindings?.[pkgs].trim() ?? "",
  ];
  const guest = [
    host ? `pkgs = mvm.hostPkgs.\${system};\ndebianLock = ./debian.lock;` : "inherit pkgs;",
    `name = ${nixString(name)};`,
    `packages = ${preset.packages[pkgs]};`,
    host ? (preset.hostOnly?.trim() ?? "") : "",
  ];
  return `{
  description = ${nixString(preset.summary)};
${host ? "" : `\n  inputs.nixpkgs.url = ${nixString(NIXPKGS)};`}
  # The guest library. When mvmctl builds, it puts its own here, wherever this points.
  inputs.mvm.url = ${nixString(`path:${encodeURI(GUEST_LIBRARY)}`)};

  outputs = { self, ${host ? "" : "nixpkgs, "}mvm }:
    let
${indent(6, joined(bindings))}
    in
    {
      packages.\${system}.default = mvm.lib.mkGuest {
${indent(8, joined(guest))}

${indent(8, preset.guest.trim())}
      };
    };
}
`;
}

function readme({ name, preset, pkgs }: ScaffoldRequest): string {
  const publish = preset.ports.map((port) => ` -p ${port}`).join("");
  return `# ${name}

${preset.summary}: a microVM template. \`flake.nix\` says what is in it.

## Build

\`\`\`sh
mvmctl template build ${name} --snapshot
\`\`\`

In this directory, that registers the template and builds its image with Nix. Then it boots the image once, waits until
every health check passes, and stores the running machine as a snapshot.

${PACKAGES[pkgs].build}

## Run

\`\`\`sh
mvmctl run --template ${name} --name ${name}${publish}
${preset.tryIt(name)}
mvmctl logs ${name}
mvmctl stop ${name}
\`\`\`

An instance is restored from the snapshot in a fraction of a second. Start as many as you like, each with a name of its
own${publish === "" ? "" : " and other host ports"}.

## Change

${preset.change.replaceAll("NAME", name)}

- A **service** is \`services.<name>\`: \`command\` (a list of words, or a line for the shell), \`preStart\`, \`env\`, \`user\`,
  \`directories\` that its user may write to. It runs as the user \`app\` unless you name another, and is restarted when it ends.
- A **health check** is \`healthChecks.<name>\`: \`healthCmd\` has to exit with 0. The snapshot waits for all of them.
- **Packages**: ${PACKAGES[pkgs].packages}
- **Files** of the image are \`files."/absolute/path"\`: a text, a path (\`./file\`), or \`{ text = …; mode = "0755"; }\`.
- **Sizes** belong to the template, not to the flake: \`mvmctl template edit ${name} --cpus 4 --mem 2048\`.

Then build again. What has not changed is not built anew.
`;
}

const PACKAGES = {
  nixpkgs: {
    build: `The first build fetches packages from nixpkgs, and pins them in \`flake.lock\`: commit it. Where no Nix cache can be
reached, make the template with \`mvmctl template init NAME --local --pkgs host\` instead: it then uses Debian's packages.`,
    packages: "`packages` lists derivations, such as `pkgs.curl`. <https://search.nixos.org/packages> finds them.",
  },
  host: {
    build: `The first build asks the machine's own Debian archives for the packages, and pins them by version and SHA-256 in
\`debian.lock\`: commit it. Remove it to take the newest versions.`,
    packages: '`packages` lists names of Debian packages, such as `"curl"`. `apt-cache search WORD` finds them.',
  },
} as const satisfies Record<PackageSet, unknown>;

function joined(parts: readonly string[]): string {
  return parts.filter((part) => part !== "").join("\n");
}

/** Moves every line that is not empty to the right. */
function indent(columns: number, text: string): string {
  return text.replace(/^(?=.)/gm, " ".repeat(columns));
}

/** A string literal of Nix. */
function nixString(text: string): string {
  return `"${text.replace(/["\\]|\$\{/g, "\\$&")}"`;
}
