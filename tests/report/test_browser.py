"""The page in a real browser: silent, alone, sorted by mouse and keyboard, on any screen."""

import base64
import json
import shutil

import pytest

from toolkit.report import draw_figures, format_page, render_figure, summarise_study

pytest.importorskip("selenium", reason="the browser tests need the dev extra's selenium")

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

BROWSER = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        BROWSER is None or DRIVER is None,
        reason="no Chromium with its chromedriver on the PATH (Debian: chromium-driver)",
    ),
]

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1200,900",
)
#: Least contrast of a text with what is behind it, by the background that is not transparent.
CONTRAST = """
function rgb(text) { return text.match(/[0-9.]+/g).map(Number); }
function light(color) {
  var v = color.slice(0, 3).map(function (x) {
    x /= 255; return x <= .04045 ? x / 12.92 : Math.pow((x + .055) / 1.055, 2.4);
  });
  return .2126 * v[0] + .7152 * v[1] + .0722 * v[2];
}
function behind(element) {
  for (var e = element; e; e = e.parentElement) {
    var color = rgb(getComputedStyle(e).backgroundColor);
    if (color.length < 4 || color[3] > 0) { return color; }
  }
  return [255, 255, 255];
}
var worst = [21, ""];
var texts = document.querySelectorAll(
  "p, li, a, td, th, caption, figcaption, h1, h2, summary, select, option, pre"
);
texts.forEach(function (e) {
  if (!e.textContent.trim() || e.className === "unseen") { return; }
  var one = light(rgb(getComputedStyle(e).color)), two = light(behind(e));
  var contrast = (Math.max(one, two) + .05) / (Math.min(one, two) + .05);
  if (contrast < worst[0]) { worst = [contrast, e.tagName + "." + e.className]; }
});
return worst;
"""


@pytest.fixture(scope="module")
def address(hostile, tmp_path_factory):
    """Address of the page of a study with hostile names."""
    figures = {stem: render_figure(ax, "svg").decode() for stem, ax in draw_figures(hostile)}
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(format_page(summarise_study(hostile), figures), encoding="utf-8")
    return path.as_uri()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in FLAGS:
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('profile')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def page(browser, address):
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
    browser.get(address)
    # On a busy machine the driver may answer before the end of a long page is read.
    WebDriverWait(browser, 30).until(
        lambda page: page.execute_script("return document.readyState") == "complete"
    )
    return browser


def unfold(page):
    """Open every fold, as a reader does by clicking its title."""
    for title in page.find_elements(By.TAG_NAME, "summary"):
        title.click()


def requested(browser):
    messages = [
        json.loads(entry["message"])["message"] for entry in browser.get_log("performance")
    ]
    return [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]


def column(page, table, place):
    rows = page.find_elements(By.CSS_SELECTOR, f"#{table} tbody tr")
    return [row.find_elements(By.CSS_SELECTOR, "th, td")[place].text for row in rows]


def heads(page, table):
    return page.find_elements(By.CSS_SELECTOR, f"#{table} thead th")


def test_the_page_opens_silently_and_asks_for_nothing(browser, address):
    browser.get_log("performance")
    browser.get(address)

    urls = requested(browser)

    assert address in urls
    assert all(url == address or url.startswith("data:") for url in urls)
    assert browser.get_log("browser") == []


def test_the_policy_refuses_what_would_leave_the_page(page):
    page.execute_script(
        "document.addEventListener('securitypolicyviolation',"
        " function (event) { window.refused = event.blockedURI; });"
        "document.body.appendChild(new Image()).src = 'http://127.0.0.1:9/pixel.png';"
    )

    refused = page.execute_async_script(
        "var done = arguments[0]; setTimeout(function () { done(window.refused); }, 200);"
    )

    assert refused == "http://127.0.0.1:9/pixel.png"
    page.get_log("browser")


def test_hostile_names_are_text_and_run_nothing(page, hostile):
    assert page.execute_script("return document.scripts.length") == 1
    assert page.execute_script("return document.querySelectorAll('b, svg, iframe').length") == 0
    shown = page.execute_script(
        "return Array.from(document.querySelectorAll('#table-people thead bdi'),"
        " function (e) { return e.textContent; })"
    )

    assert shown == ["speaker", *hostile.classes, "all"]


def test_every_drawing_is_shown(page):
    sizes = page.execute_script(
        "return Array.from(document.images, function (e) { return e.naturalWidth; })"
    )

    assert len(sizes) == 6
    assert min(sizes) > 100


def test_a_click_sorts_by_number_and_a_second_one_turns_the_order(page):
    unfold(page)
    table, before = "table-people", column(page, "table-people", 1)
    footer = page.find_element(By.CSS_SELECTOR, f"#{table} tfoot").text

    button = heads(page, table)[2].find_element(By.TAG_NAME, "button")
    button.click()
    up = [int(text) for text in column(page, table, 2)]
    status = page.find_element(By.ID, "sorted").get_attribute("textContent")
    button.click()
    down = [int(text) for text in column(page, table, 2)]

    assert up == sorted(up)
    assert down == sorted(up, reverse=True)
    assert len(set(up)) > 2
    assert column(page, table, 1) != before
    assert page.find_element(By.CSS_SELECTOR, f"#{table} tfoot").text == footer
    assert "ascending" in status
    states = [head.get_attribute("aria-sort") for head in heads(page, table)]
    assert states == ["none", "none", "descending", *["none"] * (len(states) - 3)]


def test_numbers_are_sorted_by_value_and_not_as_text(page):
    unfold(page)
    heads(page, "table-comparisons")[2].find_element(By.TAG_NAME, "button").click()

    texts = column(page, "table-comparisons", 2)

    values = [float(text.replace("\N{MINUS SIGN}", "-")) for text in texts]
    assert values == sorted(values)
    assert min(values) < 0 < max(values)
    assert texts != sorted(texts)


@pytest.mark.parametrize("key", [Keys.ENTER, Keys.SPACE], ids=["enter", "space"])
def test_the_keyboard_sorts(page, key):
    button = heads(page, "table-scores")[1].find_element(By.TAG_NAME, "button")
    page.execute_script("arguments[0].focus()", button)

    page.switch_to.active_element.send_keys(key)

    values = [float(text.split()[0]) for text in column(page, "table-scores", 1)]
    assert values == sorted(values)
    assert heads(page, "table-scores")[1].get_attribute("aria-sort") == "ascending"


def test_the_first_stop_of_the_keyboard_leads_to_the_summary(page):
    page.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
    first = page.switch_to.active_element
    said, place = first.text, first.rect["x"]
    first.send_keys(Keys.ENTER)

    assert said == "Skip to the summary"
    assert place >= 0
    assert page.switch_to.active_element.get_attribute("id") == "summary"


def test_long_tables_are_shown_once_their_fold_is_opened(page):
    table = page.find_element(By.ID, "table-people")
    fold = table.find_element(By.XPATH, "ancestor::details")
    closed, was_shown = fold.rect["height"], table.is_displayed()

    fold.find_element(By.TAG_NAME, "summary").click()

    assert not was_shown
    assert table.is_displayed()
    assert fold.rect["height"] > closed + 100


def test_one_confusion_matrix_is_shown_and_the_list_picks_another(page, hostile):
    choice = page.find_element(By.ID, "choice-confusion")
    select = Select(choice.find_element(By.TAG_NAME, "select"))

    def shown():
        tables = choice.find_elements(By.TAG_NAME, "table")
        return [t.get_attribute("id") for t in tables if t.is_displayed()]

    first, options = shown(), [option.text for option in select.options]
    select.select_by_visible_text("text-logistic")

    assert first == ["table-confusion-early"]
    assert {*options} == {*hostile.systems, "text-logistic", "audio-logistic"}
    assert shown() == ["table-confusion-text-logistic"]


def test_the_list_of_sections_stays_in_sight(page):
    page.execute_script("document.getElementById('protocol').scrollIntoView()")

    place = page.execute_script(
        "return document.querySelector('nav').getBoundingClientRect().top"
    )

    assert page.execute_script("return scrollY") > 900
    assert place == pytest.approx(0, abs=1)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_is_readable_in_light_and_dark(page, scheme):
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    unfold(page)

    contrast, where = page.execute_script(CONTRAST)
    paper = page.execute_script("return getComputedStyle(document.body).backgroundColor")

    assert contrast >= 4.5, where
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light")


@pytest.mark.parametrize("screen", [390, 800, 1280])
def test_a_screen_scrolls_tables_but_not_the_page(page, screen):
    page.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": screen, "height": 800, "deviceScaleFactor": 2, "mobile": screen < 600},
    )
    page.execute_script("document.querySelectorAll('details').forEach(e => { e.open = true; })")

    width = page.execute_script("return document.documentElement.scrollWidth")
    scrolled = page.execute_script(
        "return Array.from(document.querySelectorAll('.scroll, .drawing'),"
        " function (e) { return e.scrollWidth > e.clientWidth; })"
    )

    assert width <= screen
    assert any(scrolled)


def test_the_page_prints_without_what_is_for_screens(page):
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    hidden = page.execute_script(
        "return getComputedStyle(document.querySelector('nav')).display"
    )
    overflow = page.execute_script(
        "return getComputedStyle(document.querySelector('.scroll')).overflowX"
    )

    pdf = base64.b64decode(page.execute_cdp_cmd("Page.printToPDF", {})["data"])

    assert (hidden, overflow) == ("none", "visible")
    assert pdf.startswith(b"%PDF")
    assert len(pdf) > 50_000
