// Bundles the pages into dist/, which build.rs embeds. With --test: bundles and runs the tests.
//
// noVNC is under the MPL 2.0, which wants its source form on offer with every copy. So the bundle
// is not minified, its source map holds every file as it came, and both are served.

import { build } from "esbuild";
import { spawnSync } from "node:child_process";
import { cp, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const common = { absWorkingDir: here, bundle: true, format: "esm", target: "es2022", logLevel: "warning" };

const NOVNC = "node_modules/@novnc/novnc";
const NOTICE =
  "/*! vncgate's console page. Contains noVNC (MPL-2.0) and pako (MIT): their source form is in\n" +
  "    the source map beside this file, their licences are in licenses.txt. */";

async function bundle() {
  const result = await build({
    ...common,
    entryPoints: ["src/console.ts", "pages/style.css"],
    entryNames: "[name]-[hash]",
    outdir: "dist/assets",
    sourcemap: true,
    sourcesContent: true,
    banner: { js: NOTICE },
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

async function page(name, assets) {
  const template = await readFile(join(here, "pages", name), "utf8");
  const filled = template.replace(/{{(.+?)}}/g, (_, asset) => {
    const file = assets.get(asset);
    if (!file) {
      throw new Error(`${name} wants ${asset}, which is not built`);
    }
    return file;
  });
  await writeFile(join(here, "dist", name), filled);
}

async function licences(assets) {
  const read = (path) => readFile(join(here, NOVNC, path), "utf8");
  const { version } = JSON.parse(await read("package.json"));
  const script = assets.get("console.js");
  const intro = (await readFile(join(here, "pages/licenses.txt"), "utf8"))
    .replaceAll("{{version}}", version)
    .replaceAll("{{map}}", `${script}.map`)
    .replaceAll("{{script}}", script);
  const parts = [
    ["noVNC: AUTHORS", "AUTHORS"],
    ["noVNC: LICENSE.txt", "LICENSE.txt"],
    ["noVNC: Mozilla Public License 2.0", "docs/LICENSE.MPL-2.0"],
    ["noVNC: core/crypto/des.js", "core/crypto/des.js"],
    ["pako: the MIT licence", "vendor/pako/LICENSE"],
  ];
  const rule = "=".repeat(72);
  const texts = await Promise.all(
    parts.map(async ([heading, path]) => {
      const text = await read(path);
      // Of a script, the notice at its head.
      const notice = path.endsWith(".js") ? text.slice(0, text.indexOf("*/") + 2) : text;
      return `${rule}\n${heading}\n${rule}\n\n${notice}\n`;
    }),
  );
  await writeFile(join(here, "dist/licenses.txt"), [intro, ...texts].join("\n"));
}

async function pages() {
  await rm(join(here, "dist"), { recursive: true, force: true });
  await mkdir(join(here, "dist"), { recursive: true });
  const assets = await bundle();
  await page("vnc.html", assets);
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
