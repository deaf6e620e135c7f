#!/usr/bin/env bash
# make deb: build dist/runnerd_<version>_all.deb from the tracked files as they are now.
#   packaging/deb/build.sh [--version V] [--commit C] [--lintian]
# --version V   build it as V instead of runnerd.__version__ (to try an upgrade)
# --commit C    from what was committed as C, instead of the files as they are now
# --lintian     have lintian look at it, and fail on its errors
# Writes nothing in the checkout but dist/ and, while it runs, build/.
set -euo pipefail
cd "$(dirname "$0")/../.."

die() { echo "cannot build the package: $*" >&2; exit 1; }

version='' commit='' lintian=''
while [ $# -gt 0 ]; do
    case $1 in
        --version) version=${2:?a version} && shift ;;
        --commit) commit=${2:?a commit} && shift ;;
        --lintian) lintian=yes ;;
        *) die "there is no option $1" ;;
    esac
    shift
done

command -v dpkg-query >/dev/null || die 'only Debian and its like can build it; there is no dpkg here'
wanted=(dpkg-dev git)
while read -r package; do
    case $package in  # names that others provide
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
[ ${#missing[@]} -eq 0 ] || die "packages are missing; apt-get install --no-install-recommends ${missing[*]}"

# Whoever owns the checkout.
git() { command git -c safe.directory='*' "$@"; }
epoch=$(git log -1 --format=%ct "${commit:-HEAD}" --) || die "there is no commit ${commit:-HEAD} here"

mkdir -p build dist
scratch=$(mktemp -d build/deb.XXXXXX)
trap 'rm -rf "$scratch"; rmdir build 2>/dev/null || true' EXIT
tree=$scratch/runnerd
mkdir "$tree"

# Tracked files only: nothing that lies about here gets into the package.
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
chmod -R u=rwX,go=rX "$tree"  # whatever the checkout's umask was
mv "$tree/packaging/deb" "$tree/debian"
rm "$tree/debian/build.sh"

init=$tree/runnerd/__init__.py
version=${version:-$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' "$init")}
[[ $version =~ ^[0-9][0-9A-Za-z.+~]*$ ]] || die "${version:-nothing} is no version"
# What Python sorts before a release (1.0rc1, 1.0.dev2), Debian does with a tilde only.
deb_version=$(sed -E 's/\.?(dev|a|b|rc)([0-9]+)/~\1\2/g' <<<"$version")
sed -i "s/^__version__ = .*/__version__ = \"$version\"/" "$init"
cat >"$tree/debian/changelog" <<EOF
runnerd ($deb_version) unstable; urgency=medium

  * Version $version; the repository's history says what changed.

 -- runnerd maintainers <maintainers@runnerd.invalid>  $(date -u -R -d "@$epoch")
EOF

# A clean environment: the distribution's own tools and Python, whatever else is in the caller's PATH.
clean=(env -i "HOME=$HOME" LANG=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin "SOURCE_DATE_EPOCH=$epoch")
log=$scratch/log
# What is needed is here, see above; dpkg-buildpackage would ask for a compiler as well.
(cd "$tree" && umask 022 && "${clean[@]}" dpkg-buildpackage --build=binary --no-sign --no-check-builddeps) >"$log" 2>&1 ||
    { cat "$log" >&2; die 'dpkg-buildpackage failed, see above'; }
package=runnerd_${deb_version}_all.deb
if [ -n "$lintian" ]; then
    "${clean[@]}" lintian --no-cfg --allow-root --tag-display-limit 0 --fail-on error "$scratch/$package" || die 'lintian found errors, see above'
fi
mv "$scratch/$package" "dist/$package"
echo "dist/$package"
