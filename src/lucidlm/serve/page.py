"""The web page at `/`: files that need nothing from elsewhere."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse

from lucidlm.serve.errors import ApiError

router = APIRouter(include_in_schema=False)

FILES = Path(__file__).parent / "static"
POLICY = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
"""The page runs its own files only, whatever a model writes."""


@router.get("/")
async def index() -> FileResponse:
    """Return the page."""
    return FileResponse(FILES / "index.html", headers=POLICY)


@router.get("/page/{name}")
async def file(name: str) -> FileResponse:
    """Return one of its files."""
    if name not in {path.name for path in FILES.iterdir()}:
        raise ApiError("there is no such file", status=404)
    return FileResponse(FILES / name, headers=POLICY)
