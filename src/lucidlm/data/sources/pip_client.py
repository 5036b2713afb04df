"""Find and download one archive with pip's own client; run as a separate script by `pypi`, never imported.

`pip download` would build a source distribution to learn its metadata, which runs the package's code. This script uses
pip's finder (so that the user's index, mirrors, proxies, certificates and credentials apply) and stops once the file is
downloaded. The internals of pip that it uses are the same from pip 23.1 to 26. The library unearth finds files too, but
reads neither pip.conf nor PIP_*: index, certificates, proxy and so on would have to be read and passed on here.

    python -P pip_client.py NAME VERSION-OR-"" FOLDER

prints a line of JSON: {"file", "version", "url", "algorithm", "digest"}, the last two from the index, or
{"error": "offline" | "missing", "detail"}.
"""

import json
import re
import sys
from pathlib import Path


def main(name: str, version: str, folder: str) -> dict[str, str | None]:
    from pip._internal.commands.download import DownloadCommand
    from pip._vendor.packaging.specifiers import SpecifierSet
    from pip._vendor.requests.exceptions import RequestException

    command = DownloadCommand("download", "")
    options, _ = command.parser.parse_args([name, "--no-input", "--retries", "1"])
    with command.main_context():
        session = command.get_default_session(options)
        finder = command._build_package_finder(options, session, ignore_requires_python=True)
        specifier = SpecifierSet(f"=={version}") if version else None
        found = finder.find_best_candidate(name, specifier).best_candidate
        try:
            if found is None and (others := {candidate.version for candidate in finder.find_all_candidates(name)}):
                return {"error": "missing", "detail": f"there are {', '.join(map(str, sorted(others)))}"}
            if found is None:
                # The finder ignores indexes that it cannot reach: ask again to tell "no such package" from "no network".
                answer = session.get(f"{options.index_url.rstrip('/')}/{name}/")
                detail = f"{options.index_url} answers {answer.status_code}"
                return {"error": "offline" if answer.status_code >= 500 else "missing", "detail": detail}
            link = found.link
            identity = {"Accept-Encoding": "identity"}
            with session.get(link.url_without_fragment, headers=identity, stream=True) as answer:
                answer.raise_for_status()
                with open(Path(folder, link.filename), "wb") as file:
                    for chunk in answer.iter_content(1 << 20):
                        file.write(chunk)
        except RequestException as error:
            return {"error": "offline", "detail": str(error)}
        return {
            "file": link.filename,
            "version": str(found.version),
            "url": re.sub(r"//[^/@]*@", "//", link.url_without_fragment),  # without the user's credentials
            "algorithm": link.hash_name,
            "digest": link.hash,
        }


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
