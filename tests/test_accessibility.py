"""The pages as a screen reader and the eyes meet them: names, roles, and contrast, light and dark.

The measures are those of the Web Content Accessibility Guidelines 2.2: 1.4.3, a contrast of 4.5
between text and what lies behind it, and 4.1.2, a name and a role for everything that can be used.
"""

import pytest
import traces
from test_page import BROWSER, use

import jaxnn as nn

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium here")

AUDIT = """<script>window.addEventListener("load", () => setTimeout(() => {
  const all = (what) => [...document.querySelectorAll(what)];
  const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
  const luminance = (color) => {
    const [r, g, b] = color.map((v) => v / 255).map(
      (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const color = numbers(getComputedStyle(e).backgroundColor);
      if (color.length < 4 || color[3] > 0.5) return color;
    }
    return [255, 255, 255];
  };
  const hasText = (e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
  const isShown = (e) => e.getClientRects().length > 0;
  all("details").forEach((e) => { e.open = true; });
  const last = document.getElementById("last");
  if (last && last.tagName === "BUTTON") last.click();
  const seen = { dark: matchMedia("(prefers-color-scheme: dark)").matches };
  seen.paper = luminance(behind(document.body));
  const texts = all("body *").filter((e) => hasText(e) && isShown(e) && !e.closest("script"));
  seen.texts = texts.length;
  seen.faint = texts.map((e) => {
    const style = getComputedStyle(e);
    const color = e instanceof SVGElement ? style.fill : style.color;
    const [light, dark] = [color, null].map((c) => luminance(c ? numbers(c) : behind(e)))
      .sort((a, b) => b - a);
    return [(light + 0.05) / (dark + 0.05), `${e.outerHTML.slice(0, 80)}: ${color}`];
  }).filter(([contrast]) => contrast < 4.5);
  const used = all("button, input, select, textarea, a[href], [tabindex]").filter(isShown);
  seen.used = used.length;
  seen.nameless = used.filter((e) => !e.computedName || ["", "generic"].includes(e.computedRole))
    .map((e) => `${e.outerHTML.slice(0, 80)}: ${e.computedRole} ${e.computedName}`);
  seen.pictures = all("svg").filter((e) => isShown(e) && !e.closest("[aria-hidden=true]"))
    .map((e) => [e.computedRole, e.computedName]);
  const out = document.createElement("pre");
  out.id = "seen";
  out.textContent = JSON.stringify(seen);
  document.body.append(out);
}, 500));</script></body>"""

PAGES = {
    "the lecture's example": lambda: nn.explain(traces.lecture(), "html"),
    "a convolution": lambda: nn.explain(traces.convolution(), "html"),
    "the playground": nn.playground,
}


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_everything_has_a_name_and_a_contrast(name, dark, tmp_path):
    options = ["--enable-blink-features=ComputedAccessibilityInfo"]
    options += ["--blink-settings=preferredColorScheme=0"] if dark else []
    seen = use(PAGES[name](), tmp_path, AUDIT, *options)
    assert seen["dark"] == dark
    assert (seen["paper"] < 0.05) == dark
    assert min(seen["texts"], seen["used"]) > 10
    assert seen["faint"] == []
    assert seen["nameless"] == []
    assert seen["pictures"]
    for role, text in seen["pictures"]:
        assert role in ("group", "image", "img")
        assert len(text) > 20
