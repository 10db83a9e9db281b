"""Files that are no NetCDF or HDF5 whatever their names, and compression that HDF5 lacks, each with the way out."""

from __future__ import annotations

from smgeo.errors import SmgeoError

SIGNATURE = 64  # bytes

# First bytes (the tables of formats that file(1) uses), what such a file is, and what to do.
_OTHERS = (
    (b"GRIB", "a GRIB file", "convert it with cdo -f nc4 copy FILE NEW or grib_to_netcdf -o NEW FILE; kind: geotiff reads its fields as bands"),
    (b"CDF\x05", "a classic NetCDF file with numbers of 64 bits (CDF-5)", "convert it with nccopy -k nc4 FILE NEW"),
    (b"\x0e\x03\x13\x01", "an HDF4 file", "convert it with h4toh5 FILE NEW, or its variables with gdal_translate"),
    (b"PK\x03\x04", "a zip archive", "unpack it"),
    (b"\x1f\x8b", "compressed by gzip", "unpack it with gunzip FILE"),
    (b"II*\x00", "a TIFF file", "use kind: geotiff"),
    (b"MM\x00*", "a TIFF file", "use kind: geotiff"),
    (b"{", "JSON, as catalogues and references to chunks are", "give the files that it refers to"),
)  # fmt: skip
_PAGES = (b"<!doctype", b"<html", b"<?xml")


def is_classic(head: bytes, file: object) -> bool:
    r"""Return True if a file begins as classic NetCDF does, False if it may be HDF5.

    Parameters
    ----------
    head : bytes
        The first `SIGNATURE` bytes.
    file : Path or str
        For messages.

    Raises
    ------
    SmgeoError
        If it begins as files of another format do, with what to do.

    Examples
    --------
    >>> is_classic(b"CDF\x01", "a.nc"), is_classic(b"\x89HDF\r\n", "b.nc")
    (True, False)
    """
    if not head:
        raise SmgeoError(f"{file} cannot be opened as netcdf: it is empty; download it again")
    if head.lstrip().lower().startswith(_PAGES):
        raise SmgeoError(
            f"{file} cannot be opened as netcdf: it is a page of HTML or XML, as servers send if a download needs a sign-in; sign in and "
            "download it again"
        )
    for first, what, remedy in _OTHERS:
        if head.startswith(first):
            raise SmgeoError(f"{file} cannot be opened as netcdf: it is {what}; {remedy}")
    return head.startswith(b"CDF")


def explain_read(error: Exception) -> str:
    """Return the message of an error in reading values, with what to do if HDF5 lacks the plugin that unpacks them.

    >>> explain_read(OSError("Can't synchronously read data (can't open directory /usr/lib/plugin)")).endswith("hdf5plugin.PLUGIN_PATH")
    True
    """
    text = str(error)
    if "plugin" not in text and "filter" not in text:
        return text
    return (
        f"its numbers are compressed by a plugin that HDF5 lacks here ({text}); pip install hdf5plugin, and set the environment variable "
        "HDF5_PLUGIN_PATH to hdf5plugin.PLUGIN_PATH"
    )
