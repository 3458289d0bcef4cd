// Bundles the pages into dist/, which build.rs embeds. With --test: bundles and runs the tests.
//
// noVNC is under the MPL 2.0 and spice-html5 under the LGPL 3, which want their source form on offer
// with every copy. So the scripts are not minified, their source maps hold every file as it came,
// and both are served.

import { build } from "esbuild";
import { spawnSync } from "node:child_process";
import { cp, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const common = { absWorkingDir: here, bundle: true, format: "esm", target: "es2022", logLevel: "warning" };

const NOVNC = "node_modules/@novnc/novnc";
const SPICE = "node_modules/@spice-project/spice-html5";
const XTERM = "node_modules/@xterm/xterm";
const NOTICE =
  "/*! A page of vncgate. Contains code of others, such as noVNC (MPL-2.0) or spice-html5 (LGPL-3.0):\n" +
  "    the source form is in the source map beside this file, the licences are in licenses.txt. */";

/** Each page of a console: the script in it, and the bar above it. */
const CONSOLES = {
  "vnc.html": { script: "console.js", bar: "screen.html" },
  "spice_auto.html": { script: "spice.js", bar: "screen.html" },
  "serial.html": { script: "serial.js", bar: "line.html" },
};

/** What licenses.txt says besides its introduction. */
const LICENCES = [
  ["noVNC: AUTHORS", NOVNC, "AUTHORS"],
  ["noVNC: LICENSE.txt", NOVNC, "LICENSE.txt"],
  ["noVNC: Mozilla Public License 2.0", NOVNC, "docs/LICENSE.MPL-2.0"],
  ["noVNC: core/crypto/des.js", NOVNC, "core/crypto/des.js"],
  ["pako: the MIT licence", NOVNC, "vendor/pako/LICENSE"],
  ["spice-html5: GNU Lesser General Public License 3", SPICE, "COPYING.LESSER"],
  ["spice-html5: GNU General Public License 3", SPICE, "COPYING"],
  ["spice-html5: src/thirdparty/jsbn.js", SPICE, "src/thirdparty/jsbn.js"],
  ["spice-html5: src/thirdparty/sha1.js", SPICE, "src/thirdparty/sha1.js"],
  ["xterm.js: the MIT licence", XTERM, "LICENSE"],
];

/** xterm.js is minified as it comes, and its own map is four times its size. Its licence asks for none. */
const withoutForeignMaps = {
  name: "without foreign maps",
  setup(building) {
    building.onLoad({ filter: /@xterm\/.*\.mjs$/ }, async ({ path }) => {
      const text = await readFile(path, "utf8");
      return { contents: text.replace(/^\/\/# sourceMappingURL=.*$/m, ""), loader: "js" };
    });
  },
};

async function bundle() {
  const result = await build({
    ...common,
    entryPoints: ["src/console.ts", "src/spice.ts", "src/serial.ts", "pages/style.css"],
    entryNames: "[name]-[hash]",
    outdir: "dist/assets",
    sourcemap: true,
    sourcesContent: true,
    banner: { js: NOTICE },
    plugins: [withoutForeignMaps],
    metafile: true,
  });
  const outputs = Object.entries(result.metafile.outputs).filter(([, output]) => output.entryPoint);
  return new Map(
    outputs.map(([file, { entryPoint }]) => [
      basename(entryPoint).replace(/\.ts$/, ".js"),
      file.replace(/^dist\//, ""),
    ]),
  );
}

const read = (...path) => readFile(join(here, ...path), "utf8");

/** Writes a page with what stands in {{braces}} filled in. */
async function page(name, assets, template = name) {
  const filled = (await read("pages", template)).replace(/{{(.+?)}}/g, (_, asset) => {
    const file = assets.get(asset);
    if (!file) {
      throw new Error(`${name} wants ${asset}, which is not built`);
    }
    return file;
  });
  await writeFile(join(here, "dist", name), filled);
}

async function consoles(assets) {
  for (const [name, { script, bar }] of Object.entries(CONSOLES)) {
    const filling = [["script", assets.get(script)], ["bar", await read("pages/bars", bar)]];
    await page(name, new Map([...assets, ...filling]), "console.html");
  }
}

async function licences(assets) {
  const version = async (from) => JSON.parse(await read(from, "package.json")).version;
  const intro = (await read("pages/licenses.txt"))
    .replaceAll("{{novnc}}", await version(NOVNC))
    .replaceAll("{{spice}}", await version(SPICE))
    .replaceAll("{{xterm}}", await version(XTERM))
    .replaceAll("{{scripts}}", Object.values(CONSOLES).map(({ script }) => assets.get(script)).join("\n  "));
  const rule = "=".repeat(72);
  const texts = await Promise.all(
    LICENCES.map(async ([heading, from, path]) => {
      const text = await read(from, path);
      return `${rule}\n${heading}\n${rule}\n\n${path.endsWith(".js") ? notice(text) : text}\n`;
    }),
  );
  await writeFile(join(here, "dist/licenses.txt"), [intro, ...texts].join("\n"));
}

/** Of a script, the comments at its head, which hold its licence. */
function notice(script) {
  const [found = ""] = /^(?:\s*(?:\/\/.*|\/\*[\s\S]*?\*\/))+/.exec(script) ?? [];
  if (!/copyright/i.test(found)) {
    throw new Error("a script lost its notice");
  }
  return found.trim();
}

async function pages() {
  await rm(join(here, "dist"), { recursive: true, force: true });
  await mkdir(join(here, "dist"), { recursive: true });
  const assets = await bundle();
  await consoles(assets);
  await page("index.html", assets);
  await licences(assets);
  await cp(join(here, "pages/favicon.svg"), join(here, "dist/favicon.svg"));
}

async function tests() {
  const outdir = await mkdtemp(join(tmpdir(), "vncgate-pages-"));
  const files = (await readdir(join(here, "test"))).filter((file) => file.endsWith(".test.ts"));
  await build({
    ...common,
    entryPoints: files.map((file) => join("test", file)),
    outdir,
    outExtension: { ".js": ".mjs" },
    platform: "node",
    sourcemap: "inline",
  });
  const built = files.map((file) => join(outdir, file.replace(/\.ts$/, ".mjs")));
  const { status } = spawnSync(process.execPath, ["--enable-source-maps", "--test", ...built], { stdio: "inherit" });
  await rm(outdir, { recursive: true, force: true });
  process.exitCode = status ?? 1;
}

await (process.argv.includes("--test") ? tests() : pages());
