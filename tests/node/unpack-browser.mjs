// Unpacks the headless browser, and the system libraries that it needs, into $TMPDIR.
import chromium from "@sparticuz/chromium";

await chromium.executablePath();
