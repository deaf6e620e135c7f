#!/usr/bin/env bash
# make deb: build dist/runnerd_<version>_all.deb from the tracked files in the work tree.
#   packaging/deb/build.sh [--version V] [--commit C] [--lintian]
# --version V   set the version to V instead of runnerd.__version__ (to test an upgrade)
# --commit C    build the files of commit C instead of those in the work tree
# --lintian     run lintian on the package, and fail on errors
# Writes only to dist/ and, while it runs, to build/.
set -euo pipefail
cd "$(dirname "$0")/../.."

die() { echo "cannot build the package: $*" >&2; exit 1; }

version='' commit='' lintian=''
while [ $# -gt 0 ]; do
    case $1 in
        --version) version=${2:?a version} && shift ;;
        --commit) commit=${2:?a commit} && shift ;;
        --lintian) lintian=yes ;;
        *) die "no such option: $1" ;;
    esac
    shift
done

command -v dpkg-query >/dev/null || die 'dpkg is missing; build on Debian or a distribution derived from it'
wanted=(dpkg-dev git)
while read -r package; do
    case $package in  # virtual packages
        debhelper-compat | dh-sequence-installsysusers) package=debhelper ;;
        dh-sequence-python3) package=dh-python ;;
    esac
    wanted+=("$package")
done < <(sed -n '/^Build-Depends:/,/^[A-Z][^:]*: /s/^ \([a-z0-9.+-]*\).*/\1/p' packaging/deb/control)
[ -z "$lintian" ] || wanted+=(lintian)
missing=()
for package in "${wanted[@]}"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] ||
        [[ " ${missing[*]-} " == *" $package "* ]] || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] || {
    echo "cannot build the package: ${#missing[@]} packages are missing; as root:" >&2
    echo "apt-get install -y --no-install-recommends ${missing[*]}" >&2
    exit 1
}

# The checkout may belong to another user.
git() { command git -c safe.directory='*' "$@"; }
epoch=$(git log -1 --format=%ct "${commit:-HEAD}" --) || die "no such commit: ${commit:-HEAD}"

mkdir -p build dist
scratch=$(mktemp -d build/deb.XXXXXX)
trap 'rm -rf "$scratch"; rmdir build 2>/dev/null || true' EXIT
tree=$scratch/runnerd
mkdir "$tree"

# Tracked files only, so that other files of the work tree do not get into the package.
tracked() {
    local file
    git ls-files -z --cached | while IFS= read -r -d '' file; do
        [ ! -e "$file" ] || printf '%s\0' "$file"
    done
}
if [ -n "$commit" ]; then
    git archive "$commit"
else
    tracked | tar --create --null --files-from=- --mtime="@$epoch"
fi | tar --extract --directory="$tree" --no-same-owner
chmod -R u=rwX,go=rX "$tree"  # independent of the umask of the checkout
mv "$tree/packaging/deb" "$tree/debian"
rm "$tree/debian/build.sh"

init=$tree/runnerd/__init__.py
version=${version:-$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' "$init")}
[[ $version =~ ^[0-9][0-9A-Za-z.+~]*$ ]] || die "not a version: ${version:-(empty)}"
# Debian sorts pre-releases (1.0rc1, 1.0.dev2) before the release only if they have a tilde.
deb_version=$(sed -E 's/\.?(dev|a|b|rc)([0-9]+)/~\1\2/g' <<<"$version")
sed -i "s/^__version__ = .*/__version__ = \"$version\"/" "$init"
cat >"$tree/debian/changelog" <<EOF
runnerd ($deb_version) unstable; urgency=medium

  * Version $version; see the history of the repository for the changes.

 -- runnerd maintainers <maintainers@runnerd.invalid>  $(date -u -R -d "@$epoch")
EOF

# A clean environment: the tools and the Python of the distribution, independent of the caller's PATH.
clean=(env -i "HOME=$HOME" LANG=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin "SOURCE_DATE_EPOCH=$epoch")
log=$scratch/log
# The dependencies are checked above; dpkg-buildpackage would also require a compiler.
(cd "$tree" && umask 022 && "${clean[@]}" dpkg-buildpackage --build=binary --no-sign --no-check-builddeps) >"$log" 2>&1 ||
    { cat "$log" >&2; die 'dpkg-buildpackage failed, see above'; }
package=runnerd_${deb_version}_all.deb
if [ -n "$lintian" ]; then
    "${clean[@]}" lintian --no-cfg --allow-root --tag-display-limit 0 --fail-on error "$scratch/$package" || die 'lintian found errors, see above'
fi
mv "$scratch/$package" "dist/$package"
echo "dist/$package"
