"""Every rule as data: a permanent code, a name that says what was found, why, and the remedy.

BK1xx header and file, BK2xx pickle stream, BK3xx layout, BK4xx values, BK5xx schema, BK6xx advice.
An error makes a file invalid; a warning does so only where the caller is strict. A code is never
given a second meaning and never used again.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["ERROR", "FAMILIES", "RECIPE", "RULES", "WARNING", "Rule"]

ERROR = "error"
WARNING = "warning"


class Rule(NamedTuple):
    """One requirement.

    Attributes:
        code: "BK" and three digits; the first is the family.
        name: kebab-case, says what was found.
        severity: "error" or "warning".
        what: one sentence: what breaks the rule.
        why: what goes wrong where the rule is not kept.
        example: what such a file holds, or the code that writes one.
        fix: what to do, as an instruction.
        source: the specification, advisory or measurement behind the rule.
    """

    code: str
    name: str
    severity: str
    what: str
    why: str
    example: str
    fix: str
    source: str


RULES: dict[str, Rule] = {}
"""Every rule by its code, in the order of the codes."""

FAMILIES = {
    "BK1": "header and file",
    "BK2": "pickle stream",
    "BK3": "layout",
    "BK4": "values",
    "BK5": "schema",
    "BK6": "advice",
}
"""What the rules are about, by how their codes begin."""

RECIPE = "o = np.empty(2, object); o[0] = num_samples; o[1] = arrays; np.save(path, o)"
"""How an update is written."""

_NPY = "numpy/lib/_format_impl.py, the .npy format"
_PICKLE = "Lib/pickletools.py, the pickle opcodes"
_REDUCE = "numpy ndarray.__reduce__ and __setstate__"
_WRITERS = "files of numpy 1.16 to 2.5 on Python 2.7 to 3.13"
_SERVICE = "the update format of the BranchKey service"
_FRAMES = "python/cpython#154848 (loaders disagree about frames)"


def _rule(
    code: str, name: str, *, what: str, why: str, example: str, fix: str, source: str
) -> Rule:
    severity = WARNING if code.startswith("BK6") else ERROR
    rule = Rule(code, name, severity, what, why, example, fix, source)
    if code in RULES:
        raise ValueError(f"{code} is defined twice")
    RULES[code] = rule
    return rule


# --- BK1xx: header and file ------------------------------------------------------------------

EMPTY_FILE = _rule(
    "BK101",
    "empty-file",
    what="The file holds no bytes.",
    why="There is nothing to aggregate; most often a write or a copy was interrupted.",
    example="a file of 0 bytes",
    fix=f"write or transfer it again; np.save of a list fails and leaves such a file: {RECIPE}",
    source=_NPY,
)
NOT_NPY = _rule(
    "BK102",
    "not-npy",
    what="The file does not begin with the .npy magic bytes.",
    why="np.load falls back to unpickling whatever it does not recognise, which runs it.",
    example="a text file named update.npy",
    fix=f"save an object array: {RECIPE}",
    source=_NPY,
)
OTHER_FORMAT = _rule(
    "BK103",
    "other-format",
    what="The file is of another format that was given the name .npy.",
    why="The service reads .npy; the name does not change what is inside.",
    example="an .npz, .zip, .pt, .safetensors, HDF5 or gzip file named update.npy",
    fix=f"load the arrays and save them: {RECIPE}",
    source="the magic bytes of each format",
)
BARE_PICKLE = _rule(
    "BK104",
    "bare-pickle",
    what="The file is a pickle without the .npy header.",
    why="np.load unpickles such a file as it is, and every check of the header is passed by.",
    example="pickle.dump([n, arrays], open('update.npy', 'wb'))",
    fix=f"save an object array: {RECIPE}",
    source="numpy/lib/_npyio_impl.py, np.load falls back to pickle.load",
)
NPY_VERSION = _rule(
    "BK105",
    "npy-version",
    what="The .npy format version is not 1.0, 2.0 or 3.0.",
    why="No numpy writes or reads another version.",
    example="bytes 6 and 7 are 09 00",
    fix="write the file again with np.save",
    source=_NPY,
)
TRUNCATED_HEADER = _rule(
    "BK106",
    "truncated-header",
    what="The file ends inside its header.",
    why="A write or a transfer was interrupted.",
    example="the first 60 bytes of an update",
    fix="write or transfer the file again",
    source=_NPY,
)
OVERSIZED_HEADER = _rule(
    "BK107",
    "oversized-header",
    what="The header says it is longer than 4,096 bytes.",
    why="numpy writes about 118; a huge length makes readers allocate or parse without end.",
    example="a version 2.0 header with the length 4,294,967,295",
    fix="write the file again with np.save",
    source="numpy max_header_size and " + _NPY,
)
HEADER_FORM = _rule(
    "BK108",
    "header-form",
    what="The header text is not exactly of the form that numpy writes.",
    why="numpy evaluates this text; another form hides what other readers will see.",
    example="{'shape': (2,), 'descr': '|O'} (keys missing and out of order)",
    fix="write the file again with np.save",
    source=_NPY,
)
NOT_OBJECT_ARRAY = _rule(
    "BK109",
    "not-object-array",
    what="The file is a plain array of numbers, not an object array.",
    why="An update needs the sample count beside a list of arrays; one array can't carry both.",
    example="np.save('update.npy', weights)",
    fix=f"save an object array: {RECIPE}",
    source=_SERVICE,
)
HEADER_FORTRAN = _rule(
    "BK110",
    "header-fortran-order",
    what="The header says that the object array is in Fortran order.",
    why="numpy never writes it for one axis, and ignores it when it reads.",
    example="'fortran_order': True with 'shape': (2,)",
    fix="write the file again with np.save",
    source=_NPY,
)
HEADER_ALIGNMENT = _rule(
    "BK111",
    "header-alignment",
    what="The data does not begin at a multiple of 16.",
    why="numpy pads every header to 16 or 64 bytes; another offset was made by hand.",
    example="a header whose padding was cut by one space",
    fix="write the file again with np.save",
    source=_NPY,
)
NO_PICKLE = _rule(
    "BK112",
    "no-pickle",
    what="The file ends right after its header.",
    why="The writer failed: numpy 1.26 leaves such a file where one array is past 4 GiB.",
    example="an update cut after 128 bytes",
    fix="write the file again; for an array of more than 4 GiB use numpy 2",
    source=_WRITERS,
)

# --- BK2xx: the pickle stream ----------------------------------------------------------------

TEXT_PROTOCOL = _rule(
    "BK201",
    "pickle-protocol-0-or-1",
    what="The pickle uses protocol 0 or 1.",
    why="np.save never writes them, and their text arguments are ambiguous.",
    example="pickle.dump(update, file, protocol=0) behind an .npy header",
    fix="write the file again with np.save on Python 3 and numpy 1.17 or newer",
    source=_WRITERS,
)
PROTOCOL_2 = _rule(
    "BK202",
    "pickle-protocol-2",
    what="The pickle uses protocol 2, as Python 2 and numpy 1.16 write it.",
    why="It loads only with encoding='latin1' or through _codecs.encode, so others can't read it.",
    example="np.save on Python 2.7, or with numpy 1.16 on Python 3",
    fix="write the file again with numpy 1.17 or newer on Python 3",
    source=_WRITERS,
)
FOREIGN_GLOBAL = _rule(
    "BK203",
    "foreign-global",
    what="The pickle names something to import that an update does not need.",
    why="Importing and calling by name is how a pickle runs code on the machine that loads it.",
    example="GLOBAL 'os system'",
    fix="do not load this file with numpy or pickle; keep only plain numpy arrays in an update",
    source="pickle documentation, 'Restricting Globals'",
)
PROTOCOL_5 = _rule(
    "BK204",
    "pickle-protocol-5",
    what="The pickle uses protocol 5.",
    why="np.save never writes it, and older Pythons and the service can't read it.",
    example="pickle.dump(update, file, protocol=5) behind an .npy header",
    fix="write the file again with np.save, or pickle with protocol 4",
    source=_WRITERS,
)
NOT_A_PICKLE = _rule(
    "BK205",
    "not-a-pickle",
    what="What follows the header does not begin as a pickle of a known protocol.",
    why="An object array is always a pickle; the content was damaged or replaced.",
    example="raw numbers behind a header that says '|O'",
    fix="write the file again with np.save",
    source=_PICKLE,
)
FORBIDDEN_OPCODE = _rule(
    "BK206",
    "forbidden-opcode",
    what="The pickle holds an opcode that no update needs.",
    why="Such opcodes build other objects, call constructors or hide what runs.",
    example="INST, OBJ, NEWOBJ, DUP, POP, EXT1, PERSID",
    fix="do not load this file with numpy or pickle; write it again with np.save",
    source=_PICKLE,
)
TRUNCATED_STREAM = _rule(
    "BK207",
    "truncated-stream",
    what="The file ends before the pickle does.",
    why="A write or a transfer was interrupted.",
    example="an update without its last bytes",
    fix="write or transfer the file again and compare sizes",
    source=_PICKLE,
)
TRAILING_BYTES = _rule(
    "BK208",
    "trailing-bytes",
    what="Bytes follow the end of the pickle.",
    why="np.load ignores them: a second pickle or an archive can ride along unseen.",
    example="two updates appended to one file",
    fix="write the file again; each update goes to a file of its own",
    source=_PICKLE,
)
LENGTH_PAST_END = _rule(
    "BK209",
    "length-past-end",
    what="A length in the pickle reaches past the end of the file.",
    why="Either the file is cut short, or the length lies to make the reader allocate memory.",
    example="BINBYTES of 4 GiB in a file of 1 KiB",
    fix="write or transfer the file again and compare sizes",
    source=_PICKLE,
)
FRAME_PAST_END = _rule(
    "BK210",
    "frame-past-end",
    what="A frame reaches past the end of the file.",
    why="Either the file is cut short, or loaders will disagree about what it says.",
    example="FRAME 1,000 with 20 bytes left",
    fix="write or transfer the file again and compare sizes",
    source=_FRAMES,
)
FRAME_STRADDLED = _rule(
    "BK211",
    "frame-straddled",
    what="An opcode or its argument crosses the end of a frame.",
    why="The C and the Python unpickler read different programs from such bytes.",
    example="FRAME 5 around an opcode of 9 bytes",
    fix="do not load this file; write it again with np.save",
    source=_FRAMES,
)
FRAME_NESTED = _rule(
    "BK212",
    "frame-nested",
    what="A frame begins inside another frame.",
    why="The C and the Python unpickler read different programs from such bytes.",
    example="FRAME 100 FRAME 10",
    fix="do not load this file; write it again with np.save",
    source=_FRAMES,
)
FRAME_EMPTY = _rule(
    "BK213",
    "frame-empty",
    what="A frame of no bytes.",
    why="No pickler writes one; floods of them only cost the reader time.",
    example="FRAME 0",
    fix="do not load this file; write it again with np.save",
    source=_FRAMES,
)
MEMO_REWRITTEN = _rule(
    "BK214",
    "memo-rewritten",
    what="A memo slot is written a second time.",
    why="Picklers never do so; it is a way to change what a name means behind the reader's back.",
    example="BINPUT 0 twice",
    fix="do not load this file; write it again with np.save",
    source=_PICKLE,
)
MEMO_UNSET = _rule(
    "BK215",
    "memo-unset",
    what="The pickle fetches a memo slot that was never written.",
    why="Loading fails, so the bytes were damaged or made by hand.",
    example="BINGET 9 in a stream with four memo entries",
    fix="write the file again with np.save",
    source=_PICKLE,
)
MEMO_INDEX = _rule(
    "BK216",
    "memo-index",
    what="A memo index is larger than the number of opcodes so far.",
    why="Loaders allocate a table up to the index: a few bytes then take gigabytes.",
    example="LONG_BINPUT 4,294,967,280",
    fix="do not load this file; write it again with np.save",
    source="CVE-2018-20406, python/cpython#115952",
)
MEMO_MISPLACED = _rule(
    "BK217",
    "memo-misplaced",
    what="A memo write does not come directly after the value it names.",
    why="Picklers never do so; it is a way to hide what a slot holds.",
    example="BUILD followed by MEMOIZE",
    fix="do not load this file; write it again with np.save",
    source=_PICKLE,
)
INTEGER_TOO_LARGE = _rule(
    "BK218",
    "integer-too-large",
    what="An integer does not fit into 64 bits.",
    why="No count or dimension is that large; parsing giant integers takes unbounded time.",
    example="num_samples = 2**2100",
    fix="use a sample count from 1 to 2**53",
    source=_PICKLE,
)
UNREADABLE_TEXT = _rule(
    "BK219",
    "unreadable-text",
    what="A text in the pickle is not short, printable ASCII.",
    why="The only texts in an update are names of numpy; others can hide look-alike names.",
    example="a sample count given as a text of 10,000 letters",
    fix="keep only an integer and plain numpy arrays in an update",
    source=_WRITERS,
)
GLOBAL_NAME = _rule(
    "BK220",
    "global-name",
    what="The name of something to import is malformed.",
    why="Line ends, spaces and look-alike letters in names deceive scanners.",
    example="GLOBAL 'numpy\\r dtype'",
    fix="do not load this file; write it again with np.save",
    source=_PICKLE,
)
LIMIT_EXCEEDED = _rule(
    "BK221",
    "limit-exceeded",
    what="The pickle passes a limit of the reader: opcodes, nesting, stack or number of arrays.",
    why="Bounded work on any input is what makes reading strangers' files safe.",
    example="a million nested lists",
    fix="keep at most 1,000,000 arrays in one flat list",
    source="bkformat.layout and bkformat.stream, the limits",
)
ARRAY_SUBCLASS = _rule(
    "BK222",
    "array-subclass",
    what="The pickle holds a subclass of ndarray: a masked array, matrix, recarray or memmap.",
    why="Subclasses carry behaviour and state of their own that averaging drops or trips over.",
    example="np.ma.masked_array(w, mask) or np.matrix(w) in the list",
    fix="make it a plain array: np.asarray(x), for a masked array x.filled(value)",
    source=_REDUCE,
)
TORCH_OBJECT = _rule(
    "BK223",
    "torch-object",
    what="The pickle holds PyTorch tensors.",
    why="Loading needs PyTorch and runs its rebuild functions; the service reads numpy alone.",
    example="[n, [p for p in model.parameters()]]",
    fix="convert each tensor: t.detach().cpu().numpy()",
    source="torch/_utils.py, torch/storage.py",
)
EXTENSION_DTYPE = _rule(
    "BK224",
    "extension-dtype",
    what="An array has a dtype from outside numpy, such as bfloat16.",
    why="It loads only where the package that defines the dtype is installed.",
    example="an ml_dtypes bfloat16 array, as JAX models give it",
    fix="convert it to a numpy dtype: x.astype('float32')",
    source="ml_dtypes",
)
ORDERED_DICT = _rule(
    "BK225",
    "ordered-dict",
    what="The pickle holds an OrderedDict: a whole state_dict was saved.",
    why="An update is a list of arrays in the order of the model; it has no place for names.",
    example="[n, model.state_dict()]",
    fix="save the values: list(d.values()), each tensor as v.detach().cpu().numpy()",
    source=_SERVICE,
)

# --- BK3xx: layout ---------------------------------------------------------------------------

ROOT_NOT_ARRAY = _rule(
    "BK301",
    "root-not-array",
    what="The pickle holds something else than an object array.",
    why="np.load hands on whatever is there; the next step then fails or misreads it.",
    example="a pickled list behind an .npy header",
    fix=f"save an object array: {RECIPE}",
    source=_SERVICE,
)
OUTER_SHAPE = _rule(
    "BK302",
    "outer-shape",
    what="The object array does not have shape (2,).",
    why="np.array guesses: a count in an array or lists of equal length give another shape.",
    example="np.array([np.array([7]), [w]], dtype=object) has shape (2, 1)",
    fix=f"build it by assignment: {RECIPE}",
    source=_SERVICE,
)
HEADER_SHAPE = _rule(
    "BK303",
    "header-shape-mismatch",
    what="The shape in the header differs from the shape in the pickle.",
    why="np.load ignores the header's shape, other readers trust it: they see different files.",
    example="'shape': (3,) before an object array of shape (2,)",
    fix="write the file again with np.save",
    source=_NPY,
)
OUTER_DTYPE = _rule(
    "BK304",
    "outer-dtype",
    what="The header says object array, but the pickled array holds numbers.",
    why="np.load returns the pickled array and ignores the header.",
    example="a float32 array pickled behind a header that says '|O'",
    fix="write the file again with np.save",
    source=_NPY,
)
BARE_AGGREGATE = _rule(
    "BK305",
    "bare-aggregate",
    what="The file is an aggregate without num_samples, not an update.",
    why="Without the number of samples an update can't be weighted.",
    example="an object array of shape (k,) whose items are all arrays",
    fix=f"judge an aggregate as one (--kind aggregate); save an update with its count: {RECIPE}",
    source=_SERVICE,
)
NUM_SAMPLES_TYPE = _rule(
    "BK306",
    "num-samples-type",
    what="num_samples is not an integer.",
    why="The weight of an update must be an exact count.",
    example="num_samples = '1329' or None",
    fix="give the number of samples as a plain int",
    source=_SERVICE,
)
NUM_SAMPLES_BOOL = _rule(
    "BK307",
    "num-samples-bool",
    what="num_samples is True or False.",
    why="A bool counts as 0 or 1 in a weighted mean, which is never what was meant.",
    example="num_samples = True",
    fix="give the number of samples as a plain int",
    source=_SERVICE,
)
NUM_SAMPLES_FLOAT = _rule(
    "BK308",
    "num-samples-float",
    what="num_samples is a float.",
    why="Counts are exact; a float may be a mean, a share or a rounded value.",
    example="num_samples = 1329.0",
    fix="give the number of samples as a plain int",
    source=_SERVICE,
)
NUM_SAMPLES_NUMPY_SCALAR = _rule(
    "BK309",
    "num-samples-numpy-scalar",
    what="num_samples is a numpy scalar, not a Python int.",
    why="Its fixed width overflows in sums, such as int32 times a count, and readers refuse it.",
    example="num_samples = np.int64(1329), or counts.sum() of a numpy array",
    fix="make it a plain int: int(num_samples)",
    source=_SERVICE,
)
NUM_SAMPLES_ARRAY = _rule(
    "BK310",
    "num-samples-array",
    what="num_samples is an array.",
    why="An array as a weight broadcasts over every parameter.",
    example="num_samples = np.array(1329)",
    fix="make it a plain int: num_samples.item()",
    source=_SERVICE,
)
NUM_SAMPLES_RANGE = _rule(
    "BK311",
    "num-samples-range",
    what="num_samples is not between 1 and 2**53.",
    why="Zero divides by zero, negative counts subtract, past 2**53 floats lose whole samples.",
    example="num_samples = 0",
    fix="give the number of samples that the update was trained on",
    source=_SERVICE,
)
PARAMETERS_TUPLE = _rule(
    "BK312",
    "parameters-tuple",
    what="The parameters are a tuple, not a list.",
    why="The service asks for a list; code that appends or compares types fails on a tuple.",
    example="[n, (w, b)]",
    fix="make it a list: list(parameters)",
    source=_SERVICE,
)
PARAMETERS_DICT = _rule(
    "BK313",
    "parameters-dict",
    what="The parameters are a dict, not a list.",
    why="An update is a list of arrays in the order of the model; it has no place for names.",
    example="[n, {'weight': w, 'bias': b}]",
    fix="save the values in the order of the model: list(parameters.values())",
    source=_SERVICE,
)
PARAMETERS_TYPE = _rule(
    "BK314",
    "parameters-type",
    what="The parameters are not a list of arrays.",
    why="The service walks through a list of arrays.",
    example="[n, w] with one array in place of the list",
    fix="put the arrays into a list: [num_samples, [w]]",
    source=_SERVICE,
)
NO_PARAMETERS = _rule(
    "BK315",
    "no-parameters",
    what="The list of parameters is empty.",
    why="An update without arrays changes nothing or breaks the mean.",
    example="[n, []]",
    fix="put at least one array into the list",
    source=_SERVICE,
)
PYTHON_NUMBER = _rule(
    "BK316",
    "python-number",
    what="An item of the list is a Python number, not an array.",
    why="It has no dtype and no shape, so it can't be compared with the other sites' arrays.",
    example="[n, [w, 1.5]]",
    fix="make it an array: np.asarray(x, dtype='float32')",
    source=_SERVICE,
)
NUMPY_SCALAR = _rule(
    "BK317",
    "numpy-scalar",
    what="An item of the list is a numpy scalar, not an array.",
    why="Indexing and reductions give scalars unasked; they are no ndarrays.",
    example="[n, [w, w.mean()]]",
    fix="make it an array: np.asarray(x)",
    source=_REDUCE,
)
NOT_AN_ARRAY = _rule(
    "BK318",
    "not-an-array",
    what="An item of the list is not an array.",
    why="Only numpy arrays can be averaged.",
    example="[n, [w, None]] or a list in the list",
    fix="keep only numpy arrays in one flat list",
    source=_SERVICE,
)
SHARED_ARRAY = _rule(
    "BK319",
    "shared-array",
    what="The same array object stands in the list twice.",
    why="It loads as one object: writing to one entry changes the other.",
    example="[n, [w, w]] (tied weights)",
    fix="save a copy: [w, w.copy()]",
    source=_REDUCE,
)
SHARED_PAYLOAD = _rule(
    "BK320",
    "shared-payload",
    what="Two arrays share the same bytes of the file.",
    why="They load as one buffer: writing to one changes the other, and a small file grows huge.",
    example="2,000 arrays over one payload of 1 MB",
    fix="do not load this file; write it again with np.save",
    source=_REDUCE,
)
PAYLOAD_SIZE = _rule(
    "BK321",
    "payload-size",
    what="The bytes of an array are not exactly as many as its shape and dtype need.",
    why="The file was damaged or made by hand; loaders fail or read what is not there.",
    example="shape (3, 4) of float32 with 47 bytes",
    fix="write the file again with np.save",
    source=_REDUCE,
)
TOO_MANY_DIMENSIONS = _rule(
    "BK322",
    "too-many-dimensions",
    what="An array has more than 32 dimensions.",
    why="numpy 1.x can't load it.",
    example="shape (1,) * 33",
    fix="reshape the array",
    source="numpy NPY_MAXDIMS",
)
DIMENSION_RANGE = _rule(
    "BK323",
    "dimension",
    what="A dimension is not a plain integer from 0 to 2**63-1.",
    why="Negative, boolean and float dimensions load to something else or not at all.",
    example="shape (-1, 3) or (True, 3)",
    fix="write the file again with np.save",
    source=_REDUCE,
)
SHAPE_OVERFLOW = _rule(
    "BK324",
    "shape-overflow",
    what="The product of the dimensions is past 2**63-1 bytes.",
    why="Products that wrap around pass naive checks; numpy fails on them even where one is 0.",
    example="shape (0, 2**62, 2**62)",
    fix="write the file again with np.save",
    source=_REDUCE,
)
ARRAY_STATE = _rule(
    "BK325",
    "array-state",
    what="The state of an array is not (1, shape, dtype, is_fortran, bytes).",
    why="No numpy writes another state; loaders would read something else from it.",
    example="a state of four items, or version 2",
    fix="write the file again with np.save",
    source=_REDUCE,
)
DTYPE_STATE = _rule(
    "BK326",
    "dtype-state",
    what="The arguments or the state of a dtype are not as numpy writes them.",
    why="numpy believes what stands here, such as a false item size.",
    example="(3, '<', None, None, None, 8, -1, 0)",
    fix="write the file again with np.save",
    source=_REDUCE,
)
FORTRAN_FLAG = _rule(
    "BK327",
    "fortran-flag",
    what="The Fortran flag of an array is not a bool, or True with fewer than two axes.",
    why="No numpy writes it.",
    example="is_fortran True with shape (4,)",
    fix="write the file again with np.save",
    source=_REDUCE,
)
UNEXPECTED_STRUCTURE = _rule(
    "BK328",
    "unexpected-structure",
    what="The opcodes do not build an array, a dtype, a list or a count at this place.",
    why="What can't be an update is not read further, whatever it would build.",
    example="REDUCE on a list, BUILD on a function",
    fix="do not load this file; write it again with np.save",
    source=_REDUCE,
)
UNFINISHED_OBJECT = _rule(
    "BK329",
    "unfinished-object",
    what="An array or dtype is used before its state was set.",
    why="Loaders see an empty array, or one that changes later.",
    example="_reconstruct without BUILD",
    fix="do not load this file; write it again with np.save",
    source=_REDUCE,
)
REBUILT_OBJECT = _rule(
    "BK330",
    "rebuilt-object",
    what="The state of an array or dtype is set twice.",
    why="The second state replaces what a reader saw in the first.",
    example="BUILD, BUILD",
    fix="do not load this file; write it again with np.save",
    source=_REDUCE,
)
BIG_ENDIAN = _rule(
    "BK331",
    "big-endian",
    what="An array is big-endian.",
    why="Code that looks at the bytes reads wrong numbers, and it does not map into memory.",
    example="np.arange(3, dtype='>f4')",
    fix="convert it: x.astype(x.dtype.newbyteorder('<'))",
    source=_SERVICE,
)
COMPLEX = _rule(
    "BK332",
    "complex",
    what="An array is complex.",
    why="Few aggregators average complex numbers; a schema may allow them.",
    example="np.zeros(3, dtype='complex64')",
    fix="split it into real and imaginary arrays, or allow it in the schema",
    source=_SERVICE,
)
LONG_DOUBLE = _rule(
    "BK333",
    "long-double",
    what="An array is of long double (float128, complex256).",
    why="Its size and meaning differ between machines.",
    example="np.zeros(3, dtype=np.longdouble)",
    fix="convert it: x.astype('float64')",
    source=_SERVICE,
)
VOID = _rule(
    "BK334",
    "void",
    what="An array is of raw bytes (void).",
    why="Raw bytes can't be averaged.",
    example="np.zeros(3, dtype='V8')",
    fix="view or convert it to a numeric dtype",
    source=_SERVICE,
)
TEXT_DTYPE = _rule(
    "BK335",
    "text-dtype",
    what="An array holds text.",
    why="Text can't be averaged, and it may hold personal data.",
    example="np.array(['a', 'b'])",
    fix="leave it out: an update holds numbers only",
    source=_SERVICE,
)
DATETIME = _rule(
    "BK336",
    "datetime",
    what="An array holds dates or time spans.",
    why="Dates can't be averaged, and they may be personal data.",
    example="np.array(['2026-01-01'], dtype='datetime64[s]')",
    fix="leave it out: an update holds numbers only",
    source=_SERVICE,
)
OBJECT_DTYPE = _rule(
    "BK337",
    "object-dtype",
    what="An array in the list is itself an object array.",
    why="It may hold anything; most often rows of unequal length.",
    example="np.array([[1, 2], [3]], dtype=object) in the list",
    fix="make it numeric: np.asarray(x, dtype='float32')",
    source=_SERVICE,
)
STRUCTURED_DTYPE = _rule(
    "BK338",
    "structured-dtype",
    what="An array has named fields (a structured dtype).",
    why="Records can't be averaged.",
    example="np.zeros(3, dtype=[('a', 'f4'), ('b', 'f4')])",
    fix="save each field as an array of its own",
    source=_SERVICE,
)
DTYPE_METADATA = _rule(
    "BK339",
    "dtype-metadata",
    what="The dtype of an array carries metadata.",
    why="Metadata is a place where anything can hide; numpy itself drops it in most operations.",
    example="np.dtype('f4', metadata={'unit': 'm'})",
    fix="drop it: x.astype(x.dtype.str)",
    source=_REDUCE,
)
UNKNOWN_DTYPE = _rule(
    "BK340",
    "unknown-dtype",
    what="The dtype is none that numpy writes.",
    why="Comma and repeat forms build structured dtypes behind the reader's back.",
    example="dtype('2f4') or dtype('f4,f4')",
    fix="do not load this file; write it again with np.save",
    source=_REDUCE,
)

# --- BK4xx: values ---------------------------------------------------------------------------

NAN = _rule(
    "BK401",
    "nan",
    what="An array holds NaN.",
    why="One NaN spreads to the whole model: the mean of anything and NaN is NaN.",
    example="np.array([1.0, np.nan])",
    fix="find out why training diverged; do not send this update",
    source="IEEE 754",
)
INFINITY = _rule(
    "BK402",
    "infinity",
    what="An array holds an infinite value.",
    why="One infinity spreads to the whole model.",
    example="np.array([1.0, np.inf])",
    fix="find out why training diverged; do not send this update",
    source="IEEE 754",
)

# --- BK5xx: schema ---------------------------------------------------------------------------

PARAMETER_COUNT = _rule(
    "BK501",
    "parameter-count",
    what="The file holds more or fewer arrays than the schema.",
    why="Arrays are matched by position: one missing shifts all that follow.",
    example="61 arrays where 62 are expected",
    fix="save every parameter of the model, in its order",
    source="the schema",
)
DTYPE_MISMATCH = _rule(
    "BK502",
    "dtype-mismatch",
    what="The dtype of an array differs from the schema.",
    why="Averages of mixed dtypes round or overflow silently.",
    example="float64 where the schema says float32",
    fix="convert it: x.astype(dtype of the schema)",
    source="the schema",
)
SHAPE_MISMATCH = _rule(
    "BK503",
    "shape-mismatch",
    what="The shape of an array differs from the schema.",
    why="(3,) and (3, 1) broadcast silently to (3, 3) in an average.",
    example="(10, 784) where the schema says (784, 10)",
    fix="save the parameter in the shape of the model",
    source="the schema",
)
NUM_SAMPLES_BOUNDS = _rule(
    "BK504",
    "num-samples-bounds",
    what="num_samples lies outside the schema's bounds.",
    why="One site with a wrong count outweighs all others.",
    example="num_samples 5 where the schema asks for at least 100",
    fix="check the count, or ask the receiver about the bounds",
    source="the schema",
)
DTYPE_NOT_ALLOWED = _rule(
    "BK505",
    "dtype-not-allowed",
    what="The dtype of an array is none of those that the schema allows.",
    why="The receiver said which dtypes it can average.",
    example="int64 where the schema allows float32 alone",
    fix="convert it: x.astype(one of the schema's dtypes)",
    source="the schema",
)
VALUE_BOUND = _rule(
    "BK506",
    "value-bound",
    what="An array holds values whose magnitude is past the schema's max_abs.",
    why="Exploded weights from one site spoil everyone's model.",
    example="1e30 where the schema says max_abs 1000",
    fix="find out why training diverged, or whether max_abs is too small for this model",
    source="the schema",
)
FILE_TOO_LARGE = _rule(
    "BK507",
    "file-too-large",
    what="The file is larger than the schema's max_nbytes.",
    why="The receiver said how much it takes.",
    example="2 GiB where the schema says 1 GiB",
    fix="send fewer or smaller arrays, or ask the receiver about the bound",
    source="the schema",
)

# --- BK6xx: advice ---------------------------------------------------------------------------

INTEGER_ARRAY = _rule(
    "BK601",
    "integer-array",
    what="An array holds integers.",
    why="Averaging truncates them: BatchNorm counters average to 0 at a popular aggregator.",
    example="num_batches_tracked of a PyTorch BatchNorm layer",
    fix="leave counters out, convert them: x.astype('float32'), or name the dtype in a schema",
    source="measured on a popular federated learning framework",
)
BOOL_ARRAY = _rule(
    "BK602",
    "bool-array",
    what="An array holds booleans.",
    why="Averaging truncates them to all or nothing.",
    example="a mask saved among the weights",
    fix="leave masks out, convert them: x.astype('float32'), or name the dtype in a schema",
    source="measured on a popular federated learning framework",
)
EMPTY_ARRAY = _rule(
    "BK603",
    "empty-array",
    what="An array holds no elements.",
    why="It carries nothing, and means over it are NaN.",
    example="np.zeros((0, 3), dtype='float32')",
    fix="leave it out, unless the model has an empty parameter",
    source="numpy reductions over empty arrays",
)
