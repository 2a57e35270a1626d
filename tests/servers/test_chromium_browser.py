"""The headless browser draws a page."""

from playwright.async_api import Page


async def test_page_runs_its_script_and_draws_text(page: Page) -> None:
    await page.set_content("<p id=p></p><script>p.textContent = 6 * 7</script>")
    assert await page.inner_text("#p") == "42"
    assert (await page.screenshot()).startswith(b"\x89PNG")
